"""The vocabulary: laid out as CLIP's, and any text encodes."""

import json
import tempfile
import unittest
from pathlib import Path

import tokenizer


class Vocabulary(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.texts = ["a red dragon over a city at night", "a honey badger under a red star", "dragons", "café 3"] * 3
        cls.merges = tokenizer.learn_merges(cls.texts, 30)

    def test_ids_are_laid_out_as_clip(self):
        ids = tokenizer.vocabulary(self.merges)
        self.assertEqual(len(ids), 512 + 30 + 2)
        self.assertEqual(sorted(ids.values()), list(range(544)))
        self.assertEqual((ids["!"], ids["a"], ids["!</w>"], ids["a</w>"]), (0, 64, 256, 320))
        self.assertEqual((ids[tokenizer.BOS], ids[tokenizer.EOS]), (542, 543))

    def test_every_byte_has_a_letter_of_its_own(self):
        letters = tokenizer.byte_letters()
        self.assertEqual(len(set(letters)), 256)
        self.assertFalse(any(letter.isspace() for letter in letters))

    def test_merges_join_known_tokens(self):
        known = {letter + end for letter in tokenizer.byte_letters() for end in ("", "</w>")}
        for left, right in self.merges:
            self.assertLessEqual({left, right}, known)
            known.add(left + right)

    def test_the_most_frequent_pairs_come_first(self):
        self.assertEqual(set(self.merges[:2]), {("e", "r</w>"), ("a", "g")})

    def test_too_few_words_are_an_error(self):
        with self.assertRaisesRegex(ValueError, "ask for fewer tokens"):
            tokenizer.learn_merges(["a b"], 1000)

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.write(Path(folder), self.merges)
            read = {path.name: path.read_text(encoding="utf-8") for path in Path(folder).iterdir()}
        self.assertEqual(json.loads(read["vocab.json"]), tokenizer.vocabulary(self.merges))
        lines = read["merges.txt"].splitlines()
        self.assertEqual(lines[0], "#version: 0.2")
        self.assertEqual([tuple(line.split(" ")) for line in lines[1:]], self.merges)
        self.assertEqual(json.loads(read["tokenizer_config.json"])["model_max_length"], 77)
        self.assertEqual(json.loads(read["special_tokens_map.json"])["pad_token"], tokenizer.EOS)


try:
    from transformers import CLIPTokenizer
except ImportError:
    CLIPTokenizer = None


@unittest.skipIf(CLIPTokenizer is None, "transformers is not installed")
class AsTransformersReadsIt(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.write(Path(folder), tokenizer.learn_merges(["a red dragon at night"] * 9, 12))
            cls.clip = CLIPTokenizer.from_pretrained(folder)

    def test_caption_words_are_single_tokens(self):
        self.assertEqual(self.clip.tokenize("A red  dragon"), ["a</w>", "red</w>", "dragon</w>"])

    def test_any_text_comes_back(self):
        unknown = self.clip.eos_token_id
        for text in ("über café 123", "🐲 dragon 龍", "a\u0301 é", "don't!?"):
            ids = self.clip(text, add_special_tokens=False)["input_ids"]
            self.assertNotIn(unknown, ids, text)
            pieces = "".join(self.clip.convert_ids_to_tokens(ids)).replace("</w>", "\u0020")
            letters = {letter: byte for byte, letter in zip(self._bytes(), tokenizer.byte_letters())}
            read = b"".join(b" " if piece == " " else bytes([letters[piece]]) for piece in pieces).decode()
            expected = self.clip.backend_tokenizer.normalizer.normalize_str(text)
            self.assertEqual(read.replace(" ", ""), expected.replace(" ", ""))

    def test_padding_and_truncation(self):
        ids = self.clip(["", "a " * 100], padding="max_length", truncation=True)["input_ids"]
        self.assertEqual([len(row) for row in ids], [77, 77])
        bos, eos = self.clip.bos_token_id, self.clip.eos_token_id
        self.assertEqual(ids[0], [bos, eos] + [eos] * 75)
        self.assertEqual((ids[1][0], ids[1][-1]), (bos, eos))

    @staticmethod
    def _bytes():
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        return printable + [byte for byte in range(256) if byte not in printable]


if __name__ == "__main__":
    unittest.main()
