"""The judge's questions and answers, and how pictures are scored by them. Needs torch.

    python -m unittest test_judge
"""

import unittest

import numpy
import torch

import judge as judging
import score
from prompts import SETS, Prompt
from world import COLOURS, SETTINGS, SUBJECTS

ONE = {"subjects": [{"kind": "cat", "colour": "pink"}], "setting": "city", "time": "dawn", "relation": None}
TWO = {
    "subjects": [{"kind": "star", "colour": "red"}, {"kind": "person", "colour": "blue"}],
    "setting": "space",
    "time": "night",
    "relation": "in front of",
}
NONE = {"subjects": [], "setting": "sea", "time": "day", "relation": None}


def answers_of(labels):
    """What a judge that is never wrong would answer."""
    wanted = judging.targets(labels)
    found = {name: torch.nn.functional.one_hot(wanted[name].clamp(min=0), len(classes)).float()
             for name, classes in judging.CLASSES.items()}
    return {**found, "pairs": wanted["pairs"], "roles": wanted["roles"]}


class Questions(unittest.TestCase):
    def test_what_a_picture_does_not_tell_is_not_asked(self):
        found = judging.targets([ONE, TWO, NONE])
        asked = {name: (found[name] != judging.NOT_ASKED).tolist() for name in judging.CLASSES}
        self.assertEqual(asked["kind"], [True, False, False])
        self.assertEqual(asked["colour"], [True, False, False])
        self.assertEqual(asked["time"], [True, False, True])
        self.assertEqual(found["count"].tolist(), [1, 2, 0])
        self.assertEqual(found["pairs"].sum((1, 2)).tolist(), [1, 2, 0])
        self.assertEqual(found["roles"].sum((1, 2)).tolist(), [0, 2, 0])

    def test_roles_tell_the_relation_from_both_sides(self):
        roles = judging.targets([TWO])["roles"][0]
        self.assertEqual(judging.seen_relation(roles, ("star", "person")), "in front of")
        for relation, other in (("above", "under"), ("under", "above"), ("beside", "beside")):
            roles = judging.targets([{**TWO, "relation": relation}])["roles"][0]
            self.assertEqual(judging.seen_relation(roles, ("star", "person")), relation)
            self.assertEqual(judging.seen_relation(roles, ("person", "star")), other)

    def test_pairs_tell_which_subject_has_which_colour(self):
        pairs = judging.targets([TWO])["pairs"][0]
        self.assertEqual(judging.seen_subjects(pairs), {"star": "red", "person": "blue"})

    def test_disturbed_pictures_stay_pictures(self):
        pictures = torch.rand(4, 3, judging.SIDE, judging.SIDE)
        one = judging.disturb(pictures, torch.Generator().manual_seed(1))
        self.assertEqual(one.shape, pictures.shape)
        self.assertTrue(torch.equal(one, judging.disturb(pictures, torch.Generator().manual_seed(1))))
        self.assertTrue(0 <= one.min() and one.max() <= 1 and not torch.equal(one, pictures))

    def test_pictures_of_any_size_are_answered(self):
        judge = judging.Judge().eval()
        for height, width in ((128, 128), (128, 192), (256, 256)):
            picture = judging.tensor_of(numpy.zeros((1, height, width, 3), numpy.uint8), "cpu")
            answers = judging.ask(judge, picture)
            self.assertEqual(answers["kind"].shape, (1, len(SUBJECTS)))
            self.assertAlmostEqual(float(answers["colour"].sum()), 1, places=4)


class Scores(unittest.TestCase):
    def seen(self, label, kinds):
        return score.seen_in(answers_of([label]), 0, kinds)

    def test_a_right_picture_of_one_subject(self):
        prompt = Prompt("a pink cat in a city at dawn", ("cat",), ("pink",), "city", "dawn")
        right = score.marks(prompt, self.seen(ONE, prompt.kinds))
        self.assertEqual(right, dict.fromkeys(("subject", "count", "colour", "setting", "time", "all three"), True))

    def test_each_mistake_is_marked_alone(self):
        for kind, colour, setting, time, wrong in (
            ("dragon", "pink", "city", "dawn", {"subject", "all three"}),
            ("cat", "red", "city", "dawn", {"colour", "all three"}),
            ("cat", "pink", "sea", "dawn", {"setting", "all three"}),
            ("cat", "pink", "city", "night", {"time"}),
        ):
            right = score.marks(Prompt("", (kind,), (colour,), setting, time), self.seen(ONE, (kind,)))
            self.assertEqual({name for name, value in right.items() if not value}, wrong)

    def test_an_empty_picture_shows_no_subject(self):
        right = score.marks(Prompt("", ("honey badger",), ("red",), "sea"), self.seen(NONE, ("honey badger",)))
        self.assertEqual([name for name, value in right.items() if value], ["setting"])

    def test_what_is_not_named_is_not_scored(self):
        right = score.marks(Prompt("cat", ("cat",), (None,)), self.seen(ONE, ("cat",)))
        self.assertEqual(set(right), {"subject", "count"})

    def test_two_subjects_that_swap_colours_are_wrong(self):
        prompt = Prompt("", ("star", "person"), ("red", "blue"), "space", None, "in front of")
        self.assertTrue(all(score.marks(prompt, self.seen(TWO, prompt.kinds)).values()))
        swapped = Prompt("", ("star", "person"), ("blue", "red"), "space", None, "above")
        right = score.marks(swapped, self.seen(TWO, swapped.kinds))
        self.assertEqual({name for name, value in right.items() if not value}, {"colour", "relation", "all three"})

    def test_tables_count_what_is_asked(self):
        rows = []
        for name, make in SETS.items():
            for prompt in make():
                label = {
                    "subjects": [{"kind": k, "colour": c or "red"} for k, c in zip(prompt.kinds, prompt.colours)],
                    "setting": prompt.setting or "sea",
                    "time": prompt.time or "day",
                    "relation": prompt.relation,
                }
                seen = self.seen(label, prompt.kinds)
                about = {"kinds": prompt.kinds, "colours": prompt.colours, "setting": prompt.setting}
                rows.append({"set": name, "prompt": about, "seen": seen, "right": score.marks(prompt, seen)})
        found = score.tables(rows)
        for row in found["sets"].values():
            self.assertEqual({cell["share"] for cell in row.values()}, {1.0})
        self.assertEqual((set(found["colours"]), set(found["settings"])), (set(COLOURS), set(SETTINGS)))
        self.assertEqual(found["mistakes"], [])
        self.assertIn("reaches 80%", score.markdown(found))
        rows[0]["right"]["subject"], rows[0]["seen"]["subjects"] = False, {}
        self.assertEqual(score.tables(rows)["mistakes"][0]["seen"], "nothing")

    def test_the_interval_is_wilsons(self):
        low, high = score.interval(76, 80)
        self.assertAlmostEqual(low, 0.8784, places=3)
        self.assertAlmostEqual(high, 0.9804, places=3)


if __name__ == "__main__":
    unittest.main()
