"""Random values: what users name and tools answer. Most of them no one has ever seen.

Training and evaluation never share an open value: its CRC decides to which side it belongs.
"""

import zlib

HELD_OUT_OF = 8

CITIES = (
    "Paris London Berlin Madrid Rome Vienna Prague Zagreb Oslo Lisbon Athens Dublin Warsaw Tokyo "
    "Osaka Seoul Delhi Mumbai Cairo Lagos Nairobi Lima Quito Boston Chicago Denver Austin Seattle "
    "Toronto Sydney Perth Zurich Geneva Munich Hamburg Milan Naples Porto Bergen Helsinki Riga "
    "Tallinn Kyiv Istanbul Ankara Dubai Hanoi Manila Jakarta Bogota Santiago Havana Reykjavik"
).split()
PEOPLE = (
    "Anna Ben Carla David Elena Farid Grace Hugo Irene Jonas Kira Leon Maria Nadia Omar Paula "
    "Quentin Rosa Samuel Tara Uma Victor Wendy Xavier Yusuf Zoe Mira Ivan Lucia Petra Amir Noah"
).split()
STEMS = (
    "main lib config notes report readme test server client index data users orders build deploy "
    "setup utils schema log backup summary draft todo list invoice budget plan model train cache "
    "router worker parser token block input output results access error metrics helper common "
    "app core api auth db init run script table page style image video music photo letter"
).split()
EXTENSIONS = "txt md rs py js ts json yaml toml csv log sh c h go html css sql xml conf ini".split()
DIRS = "src docs tests data tmp home var etc opt lib bin logs scripts assets config app build".split()
PROGRAMS = (
    "ls cat git cargo make grep find du df ps wc head tail python3 node npm docker curl ping echo "
    "rm cp mv mkdir tar ssh chmod uname whoami date free top sort touch pytest systemctl kubectl"
).split()
SUBCOMMANDS = (
    "status log diff build test run check install update list pull push fetch start stop logs "
    "show clean add commit version help info images"
).split()
NOUNS = (
    "meeting server build report team lunch train plan release file deadline budget ticket dinner "
    "update review test database printer office invoice package key garden bike door lamp river "
    "coffee window summer letter number answer question backup disk queue line light water"
).split()
ADJECTIVES = (
    "green red late early ready broken new old small big slow fast blue quiet empty full warm cold "
    "open closed clean safe short long dark bright"
).split()
SKIES = (
    "light rain|heavy rain|clear sky|sunshine|snow|fog|strong wind|clouds|thunder|a storm|drizzle|"
    "hail|sleet|mist|some clouds|dry air"
).split("|")
CURRENCIES = "EUR USD GBP CHF JPY SEK NOK PLN CAD AUD INR BRL CNY CZK".split()
LANGUAGES = (
    "French German Spanish Italian Polish Czech Greek Dutch Danish Swedish Turkish Hindi Korean"
).split()
STATES = "open closed waiting blocked running stopped failed active done pending".split()
ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl pr sh sk sl st th tr qu".split()
VOWELS = "a e i o u a e i o ai ea ou ie oo".split()
CODAS = ["", "", "", "n", "r", "l", "s", "t", "m", "x", "nd", "rk", "st", "ck", "ph"]


def made_up(rng, low=1, high=2):
    """A word that can be pronounced."""
    syllables = rng.randint(low, high)
    parts = (rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(syllables))
    return "".join(parts)


def letters(rng, low, high):
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(low, high)))


def digits(rng, low, high):
    return "".join(rng.choice("0123456789") for _ in range(rng.randint(low, high)))


def word(rng):
    kind = rng.random()
    if kind < 0.35:
        return made_up(rng)
    if kind < 0.55:
        return letters(rng, 2, 7)
    return rng.choice(rng.choice((STEMS, NOUNS, ADJECTIVES, DIRS)))


def obscure(rng):
    """A word that has nothing to do with what the model knows."""
    return made_up(rng) if rng.random() < 0.6 else rng.choice(NOUNS)


def integer(rng):
    return str(rng.randrange(10 ** rng.randint(1, 5)))


def decimal(rng):
    # No zero at the end: JSON would not keep it.
    return f"{rng.randrange(10 ** rng.randint(1, 4))}.{rng.randrange(10)}{rng.randint(1, 9)}"


def number(rng):
    return decimal(rng) if rng.random() < 0.3 else integer(rng)


def stem(rng):
    parts = [word(rng) for _ in range(rng.choice((1, 1, 1, 2, 2)))]
    text = rng.choice("__-.").join(parts)
    if rng.random() < 0.2:
        text += rng.choice(("_", "-", "", "_v")) + digits(rng, 1, 4)
    return text.upper() if rng.random() < 0.04 else text


def file(rng):
    return f"{stem(rng)}.{rng.choice(EXTENSIONS)}"


def directory(rng):
    name = lambda: rng.choice(DIRS) if rng.random() < 0.5 else word(rng)
    path = "/".join(name() for _ in range(rng.randint(1, 3)))
    return rng.choice(("", "", "/", "./", "~/")) + path


def path(rng):
    return file(rng) if rng.random() < 0.45 else f"{directory(rng)}/{file(rng)}"


def city(rng):
    if rng.random() < 0.3:
        name = rng.choice(CITIES)
        return name.lower() if rng.random() < 0.2 else name
    name = made_up(rng, 2, 3).capitalize()
    if rng.random() < 0.12:
        name = rng.choice(("New", "San", "Port", "Lake", "Saint", "North")) + " " + name
    return name


def person(rng):
    return rng.choice(PEOPLE) if rng.random() < 0.4 else made_up(rng).capitalize()


def full_name(rng):
    return person(rng) if rng.random() < 0.6 else f"{person(rng)} {made_up(rng, 2, 3).capitalize()}"


def host(rng):
    return f"{word(rng)}{rng.choice(('', '', '-', '.'))}{word(rng)}.{rng.choice('com org net io dev local'.split())}"


def email(rng):
    return f"{word(rng)}{rng.choice(('', '.', '_'))}{made_up(rng)}@{host(rng)}"


def url(rng):
    return f"https://{host(rng)}" + "".join("/" + word(rng) for _ in range(rng.randint(0, 2)))


def command(rng):
    parts = [rng.choice(PROGRAMS) if rng.random() < 0.8 else word(rng)]
    if rng.random() < 0.5:
        parts.append(rng.choice(SUBCOMMANDS) if rng.random() < 0.7 else word(rng))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        flag = rng.random()
        if flag < 0.5:
            parts.append("-" + letters(rng, 1, 3))
        elif flag < 0.8:
            parts.append("--" + word(rng))
        else:
            parts += ["-" + letters(rng, 1, 1), digits(rng, 1, 3)]
    if rng.random() < 0.5:
        parts.append(rng.choice((path, directory, word, file, host))(rng))
    return " ".join(parts)


def identifier(rng):
    kind = rng.random()
    if kind < 0.4:
        return f"{letters(rng, 2, 4).upper()}-{digits(rng, 1, 5)}"
    if kind < 0.7:
        return digits(rng, 3, 7)
    return "".join(rng.choice("0123456789abcdef") for _ in range(rng.randint(4, 8)))


def ticker(rng):
    return letters(rng, 3, 5).upper()


def date(rng):
    return f"{rng.randint(2020, 2039)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def clock(rng):
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"


def phrase(rng):
    """A short text as people write it to each other."""
    kind = rng.random()
    if kind < 0.25:
        return f"the {rng.choice(NOUNS)} is {rng.choice(ADJECTIVES)}"
    if kind < 0.4:
        return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} at {clock(rng)}"
    if kind < 0.55:
        return f"{rng.choice(NOUNS)} {identifier(rng)} is {rng.choice(ADJECTIVES)}"
    pool = lambda: rng.choice(rng.choice((NOUNS, ADJECTIVES, STEMS))) if rng.random() < 0.75 else word(rng)
    return " ".join(pool() for _ in range(rng.randint(2, 6)))


def title(rng):
    return " ".join(word(rng) for _ in range(rng.randint(1, 3)))


def line(rng):
    """What stands in files."""
    kind = rng.random()
    if kind < 0.3:
        return f"{word(rng)} = {rng.choice((number, word, host))(rng)}"
    if kind < 0.5:
        return f"{word(rng)}: {rng.choice((number, phrase, path, identifier))(rng)}"
    return phrase(rng)


def lines(rng):
    return "\n".join(line(rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def output(rng):
    """What commands print."""
    kind = rng.random()
    if kind < 0.3:
        return f"{rng.randrange(500)} {rng.choice(('passed', 'files', 'lines', 'errors', 'warnings', 'items'))}"
    if kind < 0.5:
        return "\n".join(file(rng) for _ in range(rng.choice((1, 1, 2, 3))))
    return lines(rng)


def files(rng):
    return ", ".join(file(rng) for _ in range(rng.randint(1, 3)))


def small(rng):
    return str(rng.randrange(-20, 45))


def phone(rng):
    return f"+{digits(rng, 2, 2)} {digits(rng, 3, 3)} {digits(rng, 4, 5)}"


def pick(options):
    return lambda rng: rng.choice(options)


OPEN = dict(
    word=word, obscure=obscure, integer=integer, number=number, file=file, directory=directory, path=path, city=city,
    person=person, full_name=full_name, host=host, email=email, url=url, command=command,
    identifier=identifier, ticker=ticker, date=date, clock=clock, phrase=phrase, title=title,
    lines=lines, output=output, files=files, phone=phone, decimal=decimal,
)  # fmt: skip
CLOSED = dict(
    currency=pick(CURRENCIES), language=pick(LANGUAGES), sky=pick(SKIES), state=pick(STATES),
    small=small,
)  # fmt: skip

# Kinds whose values have no space, or only before a capital letter: a lower-case word that follows
# one is no part of it.
ENDING = set("word number integer path directory city person full_name host url".split())
ENDING |= set("identifier ticker date clock currency language".split())


def held_out(value):
    return zlib.crc32(value.encode()) % HELD_OUT_OF == 0


def draw(kind, rng, evaluation):
    """A value of a kind; open ones from the side of training or of evaluation."""
    if kind in CLOSED:
        return CLOSED[kind](rng)
    while True:
        value = OPEN[kind](rng)
        if held_out(value) == evaluation:
            return value
