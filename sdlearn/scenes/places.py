"""Where a scene is: sky, ground, and a thing or two."""

from sdlearn.scenes.pen import SIDE, WHITE, blend, pick, shade, vary


def sky(pen, top, bottom, horizon):
    """A smooth change of colour from the upper edge down to the horizon."""
    height = SIDE - horizon
    for i in range(10):
        y = SIDE - height * (i + 1) / 10
        pen.box(0, y - 0.5, SIDE, height / 10 + 1, blend(top, bottom, i / 9))


def moon(pen, rng, horizon):
    sky(pen, (8, 8, 26), (24, 24, 52), horizon)
    for _ in range(7):
        pen.oval(rng.uniform(2, 62), rng.uniform(horizon + 3, 62), 0.9, 0.9, WHITE)
    earth(pen, pick(rng, (9, 55)) + rng.uniform(-2, 2), rng.uniform(52, 56))
    ground = vary((176, 176, 184), rng)
    pen.box(0, 0, SIDE, horizon, ground)
    for _ in range(3):
        crater(pen, rng.uniform(4, 60), rng.uniform(2, horizon - 3), rng.uniform(3, 6), ground)


def earth(pen, x, y):
    pen.oval(x, y, 5, 5, (60, 130, 225))
    pen.oval(x - 1.5, y + 1, 2.4, 1.8, (90, 190, 110))


def crater(pen, x, y, r, ground):
    pen.oval(x, y, r, r * 0.42, shade(ground, 0.78))
    pen.oval(x, y - 0.5, r * 0.8, r * 0.27, shade(ground, 0.88))


def meadow(pen, rng, horizon):
    sky(pen, vary((90, 175, 245), rng), (205, 235, 255), horizon)
    cloud(pen, rng.uniform(8, 56), rng.uniform(54, 58))
    grass = vary((138, 205, 84), rng)
    pen.oval(rng.uniform(5, 25), horizon, 26, 5, shade(grass, 0.85))
    pen.box(0, 0, SIDE, horizon, grass)
    for _ in range(5):
        x, y = rng.uniform(1, 63), rng.uniform(1, horizon - 3)
        pen.oval(x, y, 1.2, 1.2, pick(rng, (WHITE, (255, 225, 70), (255, 130, 170))))


def cloud(pen, x, y):
    for dx, r in ((-4, 2.6), (0, 3.6), (4, 2.6)):
        pen.oval(x + dx, y, r + 1, r, WHITE)


def desert(pen, rng, horizon):
    sky(pen, vary((245, 165, 85), rng), (255, 225, 165), horizon)
    pen.oval(rng.uniform(10, 54), rng.uniform(50, 57), 4, 4, (255, 246, 200))
    sand = vary((232, 186, 112), rng)
    pen.oval(rng.uniform(0, 20), horizon - 1, 24, 6, shade(sand, 0.9))
    pen.oval(rng.uniform(44, 64), horizon - 1, 20, 5, shade(sand, 0.84))
    pen.box(0, 0, SIDE, horizon, sand)
    cactus(pen, pick(rng, (6, 58)) + rng.uniform(-2, 2), horizon)


def cactus(pen, x, y):
    green = (58, 130, 72)
    pen.line([(x, y - 3), (x, y + 11)], 3, green)
    pen.line([(x, y + 3), (x + 4, y + 4), (x + 4, y + 8)], 2, green)
    pen.line([(x, y + 2), (x - 4, y + 3), (x - 4, y + 6)], 2, green)


def seaside(pen, rng, horizon):
    sky(pen, vary((125, 205, 240), rng), (225, 245, 250), horizon)
    sea = vary((26, 118, 190), rng)
    beach = horizon - rng.uniform(10, 12)
    pen.box(0, 0, SIDE, horizon + 3, sea)
    boat(pen, pick(rng, (8, 55)) + rng.uniform(-2, 2), horizon)
    for _ in range(3):
        x, y = rng.uniform(2, 54), rng.uniform(beach + 2, horizon)
        pen.line([(x, y), (x + 8, y)], 1.2, shade(sea, 1.4))
    pen.box(0, 0, SIDE, beach, vary((240, 216, 160), rng))
    pen.line([(0, beach), (20, beach + 0.8), (42, beach - 0.5), (64, beach + 0.5)], 1.6, WHITE)


def boat(pen, x, y):
    pen.poly([(x - 1, y + 3), (x - 1, y + 15), (x + 8, y + 4)], (235, 96, 60))
    pen.poly([(x - 6, y + 3), (x + 8, y + 3), (x + 4, y - 1), (x - 4, y - 1)], (110, 66, 44))


def snow(pen, rng, horizon):
    sky(pen, vary((160, 178, 208), rng), (222, 228, 240), horizon)
    pen.box(0, 0, SIDE, horizon, (240, 243, 250))
    for _ in range(4):
        pen.oval(rng.uniform(0, 64), rng.uniform(2, horizon - 4), rng.uniform(6, 12), 1.5, (216, 224, 240))
    for x in (rng.uniform(3, 10), rng.uniform(14, 24), rng.uniform(42, 50), rng.uniform(54, 61)):
        fir(pen, x, horizon - 2, rng.uniform(12, 18), vary((38, 92, 78), rng, 0.15))


def fir(pen, x, y, height, green):
    for k in range(3):
        low, half = y + k * height / 4, 5.5 - 1.4 * k
        pen.poly([(x - half, low), (x + half, low), (x, low + height / 2.2)], green)
    low = y - 1 + 0.8 * height
    pen.poly([(x - 2, low), (x + 2, low), (x, y + height * 0.96)], WHITE)


PLACES = {  # value of "place" -> how to draw it
    "on the moon": moon,
    "in a meadow": meadow,
    "in the desert": desert,
    "by the sea": seaside,
    "in the snow": snow,
}
