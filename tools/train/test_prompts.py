"""The prompts that models are scored by: always the same, balanced, and what is called unseen is.

    python -m unittest test_prompts
"""

import collections
import itertools
import unittest

from prompts import SETS, plain, single, subject, two, unseen
from world import COLOURS, RELATIONS, SETTINGS, SUBJECTS, TIMES, captions, held_out, sample


class Prompts(unittest.TestCase):
    def test_they_are_the_same_each_time_and_none_is_there_twice(self):
        for name, make in SETS.items():
            self.assertEqual(make(), make(), name)
            texts = [prompt.text for prompt in make()]
            self.assertEqual(len(set(texts)), len(texts), name)

    def test_the_unseen_set_is_all_that_is_held_out_and_nothing_else(self):
        named = [(*prompt.kinds, *prompt.colours, prompt.setting) for prompt in unseen()]
        triples = itertools.product(SUBJECTS, COLOURS, SETTINGS)
        self.assertEqual(sorted(named), sorted(triple for triple in triples if held_out(*triple)))
        self.assertGreater(len(named), 50)

    def test_no_training_picture_shows_what_is_called_unseen(self):
        asked = {(*prompt.kinds, *prompt.colours, prompt.setting) for prompt in unseen()}
        for seed in range(4000):
            scene = sample(seed, "train")
            for shown in scene.subjects:
                self.assertNotIn((shown.kind, shown.colour, scene.setting), asked)

    def test_the_other_sets_ask_for_nothing_held_out(self):
        for prompt in (*single(), *two()):
            for kind, colour in zip(prompt.kinds, prompt.colours, strict=True):
                self.assertFalse(held_out(kind, colour, prompt.setting), prompt)

    def test_single_has_every_kind_in_every_colour_and_settings_in_balance(self):
        made = single()
        pairs = [(*prompt.kinds, *prompt.colours) for prompt in made]
        self.assertEqual(sorted(pairs), sorted(itertools.product(SUBJECTS, COLOURS)))
        counts = collections.Counter(prompt.setting for prompt in made)
        self.assertEqual(set(counts), set(SETTINGS))
        self.assertLess(max(counts.values()) - min(counts.values()), 8, counts)

    def test_two_has_every_relation_and_different_kinds_and_colours(self):
        made = two()
        self.assertEqual(len(set(collections.Counter(prompt.relation for prompt in made).values())), 1)
        self.assertEqual({prompt.relation for prompt in made}, set(RELATIONS))
        for prompt in made:
            self.assertEqual((len(set(prompt.kinds)), len(set(prompt.colours))), (2, 2), prompt)

    def test_words_say_what_is_scored(self):
        for prompt in itertools.chain.from_iterable(make() for make in SETS.values()):
            for kind, colour in zip(prompt.kinds, prompt.colours, strict=True):
                self.assertIn(kind, prompt.text)
                self.assertIn(colour or "", prompt.text)
            self.assertIn(prompt.setting or "", prompt.text.replace("by the sea", "sea"))
            hours = [time for time in TIMES if f" {time}" in prompt.text]
            self.assertEqual(hours, [prompt.time] if prompt.time else [])
            self.assertFalse(prompt.time and prompt.setting == "space", prompt)

    def test_words_are_ones_that_captions_use(self):
        known = {word for seed in range(3000) for text in captions(sample(seed), seed, 4)
                 for word in text.replace(",", "").split()}
        for prompt in itertools.chain.from_iterable(make() for make in SETS.values()):
            self.assertLessEqual(set(prompt.text.replace(",", "").split()), known, prompt.text)

    def test_articles(self):
        self.assertEqual(subject("cat", "orange"), "an orange cat")
        self.assertEqual(subject("person", "red"), "a person in red")
        self.assertEqual(subject("house", None), "a house")
        self.assertEqual({len(prompt.kinds) for prompt in plain()}, {1})


if __name__ == "__main__":
    unittest.main()
