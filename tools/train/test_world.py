"""The drawn world: the same seed draws the same, captions say what is drawn, and what is held out stays out.

    python -m unittest test_world
"""

import dataclasses
import itertools
import unittest

import numpy

from world import COLOURS, RELATIONS, SETTINGS, SUBJECTS, TIMES, caption, captions, draw, held_out, sample
from world.vocabulary import COLOUR_WORDS, KIND_WORDS, RELATION_WORDS, SETTING_WORDS, TIME_WORDS


def triples(scene):
    """Subject, colour and setting of each subject."""
    return [(subject.kind, subject.colour, scene.setting) for subject in scene.subjects]


class World(unittest.TestCase):
    def test_a_seed_draws_the_same_and_another_draws_otherwise(self):
        pictures = [draw(sample(seed)) for seed in range(40)]
        again = [draw(sample(seed)) for seed in range(40)]
        for one, two in zip(pictures, again):
            self.assertTrue(numpy.array_equal(one, two))
        for one, two in itertools.combinations(pictures, 2):
            self.assertFalse(numpy.array_equal(one, two))

    def test_captions_are_the_same_for_a_seed_and_varied(self):
        scene = sample(7)
        self.assertEqual(captions(scene, 3, 8), captions(scene, 3, 8))
        self.assertGreater(len(set(captions(scene, 3, 40))), 25)

    def test_nothing_held_out_is_in_train_or_test_and_unseen_always_is(self):
        for seed in range(3000):
            for split in ("train", "test"):
                self.assertFalse(any(held_out(*triple) for triple in triples(sample(seed, split))))
            self.assertTrue(held_out(*triples(sample(seed, "unseen"))[0]))

    def test_every_pair_of_kind_and_colour_is_seen_in_most_settings(self):
        for kind, colour in itertools.product(SUBJECTS, COLOURS):
            self.assertLessEqual(sum(held_out(kind, colour, setting) for setting in SETTINGS), 1)
        count = sum(held_out(*triple) for triple in itertools.product(SUBJECTS, COLOURS, SETTINGS))
        self.assertGreater(count, 50)

    def test_a_full_caption_names_everything(self):
        for seed in range(500):
            scene = sample(seed)
            text = caption(scene, seed, full=True)
            for subject in scene.subjects:
                self.assertTrue(any(word in text for word in KIND_WORDS[subject.kind]), text)
                self.assertTrue(any(word in text for word in COLOUR_WORDS.get(subject.colour, (subject.colour,))), text)
            self.assertTrue(any(word in text for words in SETTING_WORDS[scene.setting] for word in words), text)
            if scene.setting != "space":
                self.assertTrue(any(word in text for word in TIME_WORDS[scene.time]), text)
            if scene.relation:
                self.assertTrue(any(word in text for word in RELATION_WORDS[scene.relation]), text)

    def test_everything_there_is_gets_drawn(self):
        scenes = [sample(seed) for seed in range(2000)]
        self.assertEqual({subject.kind for scene in scenes for subject in scene.subjects}, set(SUBJECTS))
        self.assertEqual({subject.colour for scene in scenes for subject in scene.subjects}, set(COLOURS))
        self.assertEqual({scene.setting for scene in scenes}, set(SETTINGS))
        self.assertEqual({scene.time for scene in scenes}, set(TIMES))
        self.assertEqual({scene.relation for scene in scenes}, {None, *RELATIONS})

    def test_a_subjects_colour_is_on_the_picture(self):
        """Another colour for the same subject changes many of its pixels and nothing far from it."""
        for seed in range(60):
            scene = sample(seed)
            first = scene.subjects[0]
            other = dataclasses.replace(first, colour="green" if first.colour != "green" else "red")
            changed = dataclasses.replace(scene, subjects=(other, *scene.subjects[1:]))
            differs = (draw(scene) != draw(changed)).any(-1).mean()
            self.assertTrue(0.008 < differs < 0.6, (seed, scene, differs))

    def test_other_sizes(self):
        for width, height in ((192, 128), (128, 192), (64, 64), (256, 256)):
            self.assertEqual(draw(sample(5), width, height).shape, (height, width, 3))

    def test_a_wrong_split_is_named(self):
        with self.assertRaisesRegex(ValueError, "train, test and unseen"):
            sample(1, "validation")


if __name__ == "__main__":
    unittest.main()
