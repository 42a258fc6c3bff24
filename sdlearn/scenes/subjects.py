"""Who is in a scene: one body in three poses, a torso and a head for each subject."""

from sdlearn.scenes.pen import BLACK, GREY, TYRE, WHITE, shade


def sit(pen, name):
    """y = 0 is the seat."""
    _, limb, foot, *_ = SUBJECTS[name]
    pen.line([(-1, 1), (2, -5)], 3.6, shade(limb, 0.75))
    torso_and_head(pen, name, 0)
    pen.line([(0, 1.5), (5, -1), (4.5, -6)], 4, limb)
    pen.oval(5.8, -6.8, 3, 1.8, foot)
    pen.line([(1, 7.5), (7.5, 5)], 3.2, limb)


def stand(pen, name):
    """y = 0 is the ground."""
    _, limb, *_ = SUBJECTS[name]
    legs(pen, name)
    torso_and_head(pen, name, 6)
    for x in (-5, 5):
        pen.line([(x, 14), (x * 1.45, 9)], 3.2, limb)


def lift(pen, name):
    """Standing with both arms up."""
    _, limb, *_ = SUBJECTS[name]
    legs(pen, name)
    for side in (-1, 1):
        pen.line([(side * 5, 14), (side * 8.5, 20), (side * 8, 27)], 3.4, limb)
    torso_and_head(pen, name, 6)


def legs(pen, name):
    _, limb, foot, *_ = SUBJECTS[name]
    for x in (-3, 3):
        pen.line([(x, 7), (x, 2)], 4, limb)
        pen.oval(x + 1, 1.4, 3, 1.6, foot)


def torso_and_head(pen, name, y):
    body, _, _, torso, head = SUBJECTS[name]
    torso(pen, y, body)
    head(pen, 0.5, y + 15.5, body)


def round_torso(pen, y, c):
    pen.oval(0, y + 5, 6, 6.6, c)


def suit(pen, y, c):
    pen.box(-8, y + 2, 5, 9, shade(c, 0.7))
    round_torso(pen, y, c)
    pen.box(0, y + 4, 4, 3, (225, 70, 60))


def armour(pen, y, c):
    round_torso(pen, y, c)
    pen.poly([(-3, y + 10), (4, y + 10), (4.5, y + 2), (0.5, y), (-3.5, y + 2)], (190, 35, 50))


def metal_box(pen, y, c):
    pen.box(-6, y - 1, 12, 11.5, c)
    pen.box(-3, y + 3, 6, 4, (255, 220, 90))


def pale_belly(pen, y, c):
    round_torso(pen, y, c)
    pen.oval(1, y + 4.2, 4, 5, BELLY[c])


def helmet(pen, x, y, c):
    pen.oval(x, y, 7.4, 7.2, c)
    pen.oval(x + 1.6, y, 5, 4.6, (30, 52, 110))
    pen.oval(x + 3.4, y + 1.8, 1.5, 1.2, (180, 215, 255))


def visor(pen, x, y, c):
    pen.line([(x - 1, y + 6), (x - 5, y + 10), (x - 9, y + 7)], 4.4, (215, 35, 50))
    pen.oval(x, y, 6.8, 7, c)
    pen.box(x - 6, y - 6.5, 12.4, 4, shade(c, 0.8))
    pen.box(x - 1, y - 0.2, 7.6, 2.4, BLACK)


def square_head(pen, x, y, c):
    pen.line([(x, y + 5), (x, y + 10)], 1.6, TYRE)
    pen.oval(x, y + 10.5, 2, 2, (235, 50, 50))
    pen.box(x - 7, y - 5.5, 14, 11.5, c)
    for dx in (-2.4, 3.4):
        pen.oval(x + dx, y + 1, 2.2, 2.2, (255, 235, 110))
        pen.oval(x + dx, y + 1, 0.9, 0.9, BLACK)
    pen.box(x - 3, y - 4, 7, 1.6, TYRE)


def face(pen, x, y):
    for dx in (-2, 3.4):
        pen.oval(x + dx, y + 1.4, 1.4, 1.7, BLACK)


def cat_head(pen, x, y, c):
    for side in (-1, 1):
        pen.poly([(x + side * 6.6, y + 1), (x + side * 6, y + 10.5), (x + side * 0.6, y + 5.5)], c)
        pen.poly([(x + side * 5.2, y + 4), (x + side * 5.2, y + 8), (x + side * 2.6, y + 5.8)], (255, 190, 180))
    pen.oval(x, y, 7, 6.2, c)
    pen.oval(x + 1, y - 2.4, 3.6, 2.6, WHITE)
    pen.oval(x + 1, y - 1, 1, 0.8, (230, 90, 110))
    face(pen, x, y)


def bear_head(pen, x, y, c):
    for side in (-1, 1):
        pen.oval(x + side * 5.6, y + 5.6, 3.2, 3.2, c)
        pen.oval(x + side * 5.6, y + 5.6, 1.7, 1.7, BELLY[c])
    pen.oval(x, y, 7.2, 6.6, c)
    pen.oval(x + 1.2, y - 2, 4, 3.2, BELLY[c])
    pen.oval(x + 1.6, y - 0.6, 1.7, 1.2, BLACK)
    face(pen, x, y + 0.6)


def penguin_head(pen, x, y, c):
    pen.oval(x, y, 6.6, 6.6, c)
    pen.oval(x - 1, y - 0.8, 3.2, 4, WHITE)
    pen.oval(x + 3, y - 0.8, 3, 4, WHITE)
    face(pen, x, y - 0.4)
    pen.poly([(x, y - 0.6), (x + 9, y - 2.2), (x, y - 3.8)], ORANGE)


BROWN, INK, GINGER, ORANGE = (118, 72, 40), (38, 44, 76), (242, 150, 58), (245, 140, 30)
BELLY = {BROWN: (206, 160, 110), INK: WHITE, GINGER: (255, 225, 185)}
SUBJECTS = {  # name -> colours of body, limbs and feet, how to draw torso and head
    "astronaut": (WHITE, (216, 218, 226), GREY, suit, helmet),
    "knight": ((168, 176, 192), (128, 136, 154), (90, 96, 112), armour, visor),
    "robot": ((64, 178, 176), (90, 108, 120), TYRE, metal_box, square_head),
    "cat": (GINGER, (226, 128, 40), WHITE, pale_belly, cat_head),
    "bear": (BROWN, (98, 58, 30), (70, 42, 22), pale_belly, bear_head),
    "penguin": (INK, INK, ORANGE, pale_belly, penguin_head),
}
