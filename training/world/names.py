"""The names of things, for each slot that a phrasing may have. The first name is the one that the model itself uses."""

from __future__ import annotations

Names = dict[str, tuple[str, ...]]

NAMES: dict[str, Names] = {
    "shape": {
        "cube": ("cube", "block", "box"),
        "ball": ("ball", "sphere"),
        "cone": ("cone",),
        "cylinder": ("cylinder", "can", "tube"),
    },
    "colour": {
        "red": ("red",),
        "orange": ("orange",),
        "yellow": ("yellow",),
        "green": ("green",),
        "cyan": ("cyan", "turquoise"),
        "blue": ("blue",),
        "purple": ("purple", "violet"),
        "pink": ("pink",),
    },
    "size": {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")},
    "place": {
        "gray room": ("in a gray room", "in a grey room", "indoors"),
        "blue sky": ("under a blue sky", "on sand", "in the desert"),
        "night": ("at night", "in the dark"),
        "green field": ("in a green field", "on grass", "on a meadow"),
    },
    "camera": {
        "still": ("does not move", "stays where it is"),
        "pan left": ("turns to the left", "pans left"),
        "pan right": ("turns to the right", "pans right"),
        "zoom in": ("zooms in", "gets nearer"),
        "zoom out": ("zooms out", "gets farther"),
    },
    "part": {
        "far left": ("far left", "left edge"),
        "left": ("left",),
        "middle": ("middle", "centre"),
        "right": ("right",),
        "far right": ("far right", "right edge"),
    },
    "style": {
        "plain": ("in full colour",),
        "grayscale": ("in grayscale", "in black and white"),
        "pixel art": ("as pixel art", "in big pixels"),
        "pencil sketch": ("as a pencil sketch", "in pencil"),
    },
    "number": {
        "zero": ("no", "0"),
        "one": ("one", "1"),
        "two": ("two", "2"),
        "three": ("three", "3"),
        "four": ("four", "4"),
    },
    "do": {
        "still": ("stand still", "stop", "stay where it is"),
        "left": ("slide to the left", "go left", "move to the left"),
        "right": ("slide to the right", "go right", "move to the right"),
        "forward": ("slide forward", "come closer", "move towards us"),
        "backward": ("slide backward", "go away", "move away from us"),
        "fly left": ("fly to the left", "jump to the left", "leap to the left"),
        "fly right": ("fly to the right", "jump to the right", "leap to the right"),
        "bounce": ("bounce", "bounce up and down", "hop"),
        "spin": ("spin", "turn around", "rotate"),
        "grow": ("grow", "get bigger", "swell"),
        "shrink": ("shrink", "get smaller"),
        "appear": ("appear", "come into view", "pop up"),
        "vanish": ("vanish", "disappear"),
        "orbit": ("circle the other one", "go around the other one", "orbit the other one"),
        "hit": ("hit the other one", "bump into the other one", "run into the other one"),
        "be hit": ("be hit", "be pushed"),
    },
    "does": {
        "still": ("stands still", "does not move", "rests"),
        "left": ("slides to the left", "goes left", "moves to the left"),
        "right": ("slides to the right", "goes right", "moves to the right"),
        "forward": ("slides forward", "comes closer", "moves towards us"),
        "backward": ("slides backward", "goes away", "moves away from us"),
        "fly left": ("flies to the left", "jumps to the left", "leaps to the left"),
        "fly right": ("flies to the right", "jumps to the right", "leaps to the right"),
        "bounce": ("bounces", "bounces up and down", "hops"),
        "spin": ("spins", "turns around", "rotates"),
        "grow": ("grows", "gets bigger", "swells"),
        "shrink": ("shrinks", "gets smaller"),
        "appear": ("appears", "comes into view", "pops up"),
        "vanish": ("vanishes", "disappears"),
        "orbit": ("circles the other one", "goes around the other one", "orbits the other one"),
        "hit": ("hits the other one", "bumps into the other one", "runs into the other one"),
        "be hit": ("is hit", "is pushed"),
    },
}

OTHER_NAME = 0.2
"""How often people use another name than the first."""
