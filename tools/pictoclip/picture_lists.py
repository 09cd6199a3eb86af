"""What the tasks of the suite ``pictures`` show: classes, categories, what is left out, and why."""

from __future__ import annotations

from evaluate import ID_CLASSES

__all__ = [
    "ARTIFACTS",
    "CATEGORIES",
    "ID_CLASSES",
    "MADE",
    "MISNAMED",
    "NOT_SHOWN",
    "OOD_OF_TASK",
    "SYNONYMS",
]


def words(text: str) -> list[str]:
    """Split a list at its commas."""
    return [word.strip() for word in text.split(",")]


def far(*names: str) -> dict[str, tuple[str, str]]:
    """Describe far sets of the categories of the same names."""
    return {name: ("far", name) for name in names}


# Classes of the second task. All are names that training pictures had, as those of the first.
ARTIFACTS = tuple(
    words(
        "airplane, helicopter, rocket, sailboat, bicycle, motorcycle, automobile, ambulance, "
        "police car, tractor, taxi, locomotive, hammer, screwdriver, wrench, scissors, key, "
        "magnet, ladder, carpentry saw, guitar, trumpet, drum, saxophone, accordion, camera, "
        "television, telephone, laptop, printer, radio, microphone, headphone, light bulb, "
        "candle, flashlight, chair, bed, toilet, bathtub, door, broom, shopping cart, pencil, "
        "crayon, paperclip, envelope, backpack, glasses, crown, dress, necktie, jeans, top hat, "
        "running shoe, socks, microscope, telescope, syringe, castle, church, house, tent, "
        "hospital"
    )
)

# Category -> Unicode's subgroups of emoji.
CATEGORIES = {
    "animals": words(
        "animal-mammal, animal-bird, animal-bug, animal-marine, animal-reptile, animal-amphibian"
    ),
    "food": words(
        "food-fruit, food-vegetable, food-prepared, food-asian, food-marine, food-sweet, drink"
    ),
    "plants": words("plant-flower, plant-other"),
    "vehicles": words("transport-ground, transport-air, transport-water"),
    "buildings": words("place-building, place-religious"),
    "tools": words("tool, science, medical, musical-instrument, computer, phone, light-video"),
    "household": words("household, dishware, office, writing, lock"),
    "clothing": words("clothing"),
    "sports": words("sport, game, award-medal"),
    "faces": words(
        "face-smiling, face-affection, face-tongue, face-hand, face-neutral-skeptical, "
        "face-sleepy, face-unwell, face-concerned, face-negative"
    ),
    "signs": words("arrow, av-symbol, transport-sign, warning, other-symbol, math, punctuation"),
}

# Left out of the OOD sets. Kinds of an ID class, or pictures that hold one:
_ID_IN_OTHER_WORDS = words(
    "guide dog, service dog, poodle, black cat, two hump camel, ox, pig nose, polar bear, "
    "spouting whale, rooster, baby chick, front facing baby chick, hatching chick, rat, bird, "
    "green apple, brown mushroom, baguette bread, flatbread, stuffed flatbread, bagel, soft ice "
    "cream, shaved ice, shortcake, cooking, carousel horse, teddy bear, mouse trap, oncoming "
    "automobile, oncoming taxi, oncoming police car, racing car, sport utility vehicle, motor "
    "scooter, small airplane, airplane arrival, airplane departure, high speed train, bullet "
    "train, train, camera with flash, video camera, sunglasses, couch and lamp, house with "
    "garden, houses, derelict house, hut, love hotel, wedding, japanese castle, hammer and pick, "
    "hammer and wrench, old key, locked with key, linked paperclips, musical keyboard, hiking "
    "boot, man's shoe, woman's hat, one piece swimsuit, long drum, telephone receiver, person in "
    "bed, shower"
)
# Not of their category to the eye, or hardly anything to see.
_UNFIT = words(
    "paw prints, feather, wing, spider web, microbe, dna, empty nest, nest with eggs, mushroom, "
    "honey pot, baby bottle, canned food, pouring liquid, ice, salt, butter, seat, construction, "
    "fuel pump, motorway, bus stop, station, stop sign, oil drum, railway track, roller skate, "
    "skateboard, tramway, wood, rock, brick, building construction, bone, gem stone, lipstick, "
    "prayer beads, hair pick, ring, flag in hole, hole, bubbles, window, mirror, placard, link, "
    "broken chain, chains, x ray, memo, drop of blood, adhesive bandage, bar chart, chart "
    "increasing, chart decreasing, calendar, spiral calendar, tear off calendar, club suit, "
    "diamond suit, heart suit, spade suit, joker, flower playing cards, mahjong red dragon, "
    "litter in bin sign, fleur de lis, piñata, manual wheelchair, motorized wheelchair, wheel, "
    "ring buoy, anchor, battery, low battery"
)
NOT_SHOWN = frozenset((*_ID_IN_OTHER_WORDS, *_UNFIT))

# Icons of a set whose file name says less than the thing: "camera" is one that watches a street.
MISNAMED = {
    "icon-park": words(
        "honeybee, chicken, trumpet, camera, telephone, laptop, radio, telescope, doughnut, tent"
    ),
    # Drawn as a mark like ">".
    "fxemoji": words("toilet"),
}

# Sets without icons of a vendor.
MADE = ("digits", "textures")
_NO_THINGS = far("faces", "signs", "letters", *MADE)
# Task -> name of an OOD set -> (group, category).
OOD_OF_TASK: dict[str, dict[str, tuple[str, str]]] = {
    "animals-food": {
        "other-animals": ("near", "animals"),
        "other-food": ("near", "food"),
        "plants": ("near", "plants"),
        **far("vehicles", "buildings", "tools", "clothing", "sports"),
        **_NO_THINGS,
    },
    "artifacts": {
        "other-vehicles": ("near", "vehicles"),
        "other-buildings": ("near", "buildings"),
        "other-tools": ("near", "tools"),
        "other-household": ("near", "household"),
        "other-clothing": ("near", "clothing"),
        **far("animals", "food", "plants"),
        **_NO_THINGS,
    },
}
# Other words for a class: false negatives, if a corpus holds them.
SYNONYMS = {
    name: words(also)
    for name, also in {
        "dog": "puppy, hound, doggy, domestic dog",
        "cat": "kitty, kitten, pussycat, tomcat",
        "mouse": "mousie, field mouse, house mouse",
        "rabbit": "bunny, hare, cottontail",
        "fox": "red fox, vixen",
        "bear": "brown bear, grizzly, teddy",
        "panda": "giant panda, panda bear",
        "koala": "koala bear",
        "tiger": "bengal tiger, tigress",
        "lion": "lioness, king of beasts",
        "cow": "cattle, bull, calf",
        "pig": "hog, swine, piglet",
        "frog": "toad, bullfrog",
        "wolf": "timber wolf, grey wolf",
        "chicken": "hen, rooster, fowl",
        "parrot": "macaw, parakeet",
        "eagle": "bald eagle, golden eagle",
        "duck": "mallard, drake, duckling",
        "owl": "barn owl, hoot owl",
        "horse": "pony, stallion, mare",
        "honeybee": "bee, bumblebee",
        "butterfly": "monarch butterfly, moth",
        "snail": "garden snail, slug",
        "lady beetle": "ladybug, ladybird",
        "turtle": "tortoise, sea turtle",
        "snake": "serpent, viper",
        "octopus": "devilfish, squid",
        "crab": "fiddler crab, crayfish",
        "dolphin": "porpoise, bottlenose dolphin",
        "whale": "blue whale, sperm whale",
        "shark": "great white shark, hammerhead",
        "kangaroo": "wallaby, roo",
        "zebra": "plains zebra",
        "elephant": "african elephant, mastodon",
        "camel": "dromedary, bactrian camel",
        "giraffe": "camelopard",
        "red apple": "apple, eating apple",
        "banana": "plantain, banana tree",
        "grapes": "grape, grapevine",
        "watermelon": "melon, watermelon vine",
        "strawberry": "wild strawberry, garden strawberry",
        "pineapple": "pineapple plant, ananas",
        "cherries": "cherry, sweet cherry",
        "lemon": "citron, citrus fruit",
        "peach": "nectarine, peach tree",
        "tomato": "cherry tomato, plum tomato",
        "eggplant": "aubergine",
        "carrot": "carrots, cultivated carrot",
        "ear of corn": "corn, maize, sweet corn, corncob",
        "hot pepper": "chili, jalapeno, cayenne",
        "onion": "spring onion, shallot",
        "mushroom": "toadstool, fungus",
        "bread": "loaf of bread, loaf, toast",
        "cheese wedge": "cheese, cheddar, swiss cheese",
        "hamburger": "burger, cheeseburger",
        "french fries": "fries, chips",
        "pizza": "pizza pie, sausage pizza",
        "hot dog": "hotdog, frankfurter, wiener",
        "doughnut": "donut, sinker",
        "cookie": "biscuit, cooky",
        "ice cream": "sundae, gelato",
        "birthday cake": "cake, layer cake",
        "airplane": "aeroplane, plane, jet",
        "helicopter": "chopper, whirlybird",
        "rocket": "skyrocket, missile",
        "sailboat": "sailing boat, yacht",
        "bicycle": "bike, cycle",
        "motorcycle": "motorbike, moped",
        "automobile": "car, motorcar, sedan",
        "police car": "patrol car, squad car",
        "tractor": "farm machine",
        "taxi": "cab, taxicab",
        "locomotive": "steam engine, steam locomotive",
        "hammer": "claw hammer, mallet",
        "wrench": "spanner, monkey wrench",
        "scissors": "shears, pair of scissors",
        "key": "house key, latchkey",
        "carpentry saw": "saw, handsaw",
        "guitar": "acoustic guitar, electric guitar",
        "trumpet": "cornet, horn",
        "saxophone": "sax",
        "television": "television set, tv",
        "telephone": "phone, dial telephone",
        "laptop": "laptop computer, notebook computer",
        "radio": "radio receiver, wireless",
        "microphone": "mike",
        "headphone": "earphone, headset",
        "light bulb": "bulb, lightbulb",
        "candle": "taper, wax light",
        "flashlight": "torch",
        "chair": "armchair, side chair",
        "toilet": "commode, lavatory",
        "bathtub": "bath, tub",
        "broom": "besom",
        "backpack": "knapsack, rucksack",
        "glasses": "spectacles, eyeglasses",
        "dress": "frock, gown",
        "necktie": "tie",
        "jeans": "blue jeans, denims",
        "top hat": "high hat, silk hat",
        "running shoe": "sneaker, gym shoe",
        "syringe": "hypodermic syringe",
        "castle": "palace, fortress",
        "church": "church building, chapel",
        "house": "dwelling, cottage",
        "hospital": "infirmary",
    }.items()
}
