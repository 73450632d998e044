"""The names of what the world holds, and the words a caption may use for each."""

SUBJECTS = ("honey badger", "person", "building", "star", "dragon", "tree", "house", "moon", "boat", "mountain",
            "fish", "flower", "cat", "balloon")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
SETTINGS = ("hill", "sea", "forest", "city", "desert", "snow", "space")
TIMES = ("day", "sunset", "night", "dawn")
RELATIONS = ("above", "under", "beside", "in front of")
SIZES = ("small", "medium", "large")

# The colour a subject has when nobody names one, most likely first.
NATURAL = {
    "honey badger": ("black",), "person": ("red", "blue", "yellow"), "building": ("blue", "orange", "white"),
    "star": ("yellow",), "dragon": ("green", "red"), "tree": ("green",), "house": ("red", "white", "yellow"),
    "moon": ("yellow", "white"), "boat": ("red", "white", "blue"), "mountain": ("blue", "purple"),
    "fish": ("orange", "blue"), "flower": ("red", "pink", "yellow"), "cat": ("orange", "black", "white"),
    "balloon": ("red", "yellow"),
}

# Those that fly or hang in the sky; all others stand on the ground, or on a cloud where they are above something.
SKY = ("star", "moon", "balloon")

POSES = {
    "honey badger": ("standing", "walking"), "person": ("standing", "walking", "waving"),
    "dragon": ("flying", "sitting"), "tree": ("round", "pine"), "cat": ("sitting", "standing"),
    "building": ("flat", "stepped", "pointed"),
}

# Words for a subject, the name itself first; the first is used half of the time.
KIND_WORDS = {
    "honey badger": ("honey badger", "badger", "ratel"), "person": ("person", "man", "woman", "traveller"),
    "building": ("building", "tower", "skyscraper", "tall building"), "star": ("star", "five-pointed star"),
    "dragon": ("dragon",), "tree": ("tree",), "house": ("house", "cottage", "little house"),
    "moon": ("moon", "crescent moon"), "boat": ("boat", "sailing boat", "ship", "sailboat"),
    "mountain": ("mountain", "peak"), "fish": ("fish",), "flower": ("flower", "blossom"),
    "cat": ("cat", "kitty"), "balloon": ("balloon", "hot air balloon"),
}
COLOUR_WORDS = {"red": ("red", "crimson"), "yellow": ("yellow", "golden"), "purple": ("purple", "violet"),
                "pink": ("pink", "rose")}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("",), "large": ("big", "large", "huge", "giant")}
POSE_WORDS = {"walking": ("walking",), "waving": ("waving",), "standing": ("standing",), "sitting": ("sitting",),
              "flying": ("flying",)}

# Where something stands, and where something in the sky is.
SETTING_WORDS = {
    "hill": (("on a hill", "on a green hill", "in the hills", "in a meadow"), ("over a hill", "above green hills")),
    "sea": (("by the sea", "at sea", "in the sea", "on the sea", "on the ocean"), ("over the sea", "above the ocean")),
    "forest": (("in a forest", "in the forest", "in the woods"), ("over a forest", "above the forest")),
    "city": (("in a city", "in the city", "in town"), ("over a city", "above the city")),
    "desert": (("in a desert", "in the desert", "among sand dunes"), ("over a desert", "above the desert")),
    "snow": (("in the snow", "in a snowy landscape", "in winter"), ("over the snow", "above a snowy landscape")),
    "space": (("in space", "in outer space", "among the stars"), ("in space", "in outer space", "among the stars")),
}
TIME_WORDS = {
    "day": ("by day", "at noon", "in daylight", "on a sunny day"), "sunset": ("at sunset", "at dusk", "in the evening"),
    "night": ("at night", "by night", "at midnight"), "dawn": ("at dawn", "at sunrise", "in the early morning"),
}
RELATION_WORDS = {
    "above": ("above", "over", "floating above"), "under": ("under", "below", "beneath"),
    "beside": ("beside", "next to", "and", "with", "near"), "in front of": ("in front of", "before"),
}
OPENINGS = ("a picture of", "an illustration of", "a drawing of", "a paper cut of")
ENDINGS = ("flat illustration", "paper cut style", "children's book", "simple shapes")


def held_out(kind: str, colour: str, setting: str) -> bool:
    """Whether this combination is kept out of the training pictures, to test what was understood.

    One setting at most of each pair of kind and colour: every pair is seen, and so are all of a kind's settings.
    """
    i, j, k = SUBJECTS.index(kind), COLOURS.index(colour), SETTINGS.index(setting)
    return (i + 3 * j + 2 * k) % 11 == 0
