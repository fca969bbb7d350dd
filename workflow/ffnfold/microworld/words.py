"""The words of the embedded corpus: invented names, and a few hundred common words that the three tasks share.

Each list is the options of one slot. The names are few on purpose: a small model must learn within a million tokens
that a name given once can be asked for again.
"""


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


TOWNS = _list(
    "Ostrell Hadwick Quillan Brenmoor Tarrow Veldin Sallow Kestrin Oxmere Dunfell Mirrin Pellworth Corran Lorvale "
    "Nethra Wexcombe Ardley Bexholm Colvane Drummel Eskdown Farrand Gristow Holmarsh"
)
PEOPLE = _list(
    "Maren Toller Ysolde Corin Edda Bram Sunniva Alaric Petra Joss Linnet Osric Tamsin Hugo Wilda Rurik Anselm Berit "
    "Clovis Dagny Emeric Fenna Godric Hedda"
)
RIVERS = _list("Vael Ister Lind Aske Morrow Tessel Dray Ulm")
TRADES = _list(
    "weaver mason baker smith farmer sailor painter tailor singer hunter printer potter healer carver dyer miller"
)
GOODS = _list("salt wool honey iron timber barley glass silk copper wine cheese amber rope paper apples coal")
QUALITIES = _list("quiet tall small proud busy rich grey famous wide young narrow green lonely steep windy friendly")

PLACES = _list(
    "inn play concert market feast fair tavern school ferry bath circus gallery orchard theatre bakery library"
)
ASPECTS = _list("bread soup staff music room garden price light story service crowd view")
GOOD = _list("fresh kind lovely clean bright charming splendid pleasant superb cheerful elegant delightful")
BAD = _list("stale rude ugly dirty dull tedious dreadful nasty clumsy shabby awful gloomy")
ASIDES = (
    "it rained all day",
    "the road was long",
    "we stayed for an hour",
    "many people came",
    "a friend had told us to go",
    "the doors opened at noon",
    "our guide spoke little",
    "a dog slept by the fire",
)

BUILDINGS = _list(
    "mill bridge school tavern bath market tower library harbour chapel gate well theatre bakery barn dock"
)
WORKS = _list("hall road wall quay canal prison hostel fountain granary workshop stable arcade")
NUMBERS = _list("ten twenty thirty forty fifty sixty seventy eighty ninety hundred")
DAYS = _list("monday tuesday wednesday thursday friday saturday sunday")
DEEDS = _list("opened closed bought built saved sold cleaned painted rented blessed")
WEATHER = (
    "the sky was grey",
    "the sun was warm",
    "the wind was cold",
    "snow fell on the roofs",
    "fog lay over the fields",
    "the night was clear",
    "thunder shook the windows",
    "lanterns swung beside each stall",
)
