"""The kinds of tools that the dialogues are about, and what they answer.

`{slot}` is a value: a parameter of the call or a fact of the result. What users say to have one
called stands in asks.py.
"""

from dataclasses import dataclass, replace

from asks import ASKS
from chain_asks import CHAIN_ASKS


@dataclass
class Parameter:
    names: list  # the first is the slot's name
    value: str  # a kind of values.py
    about: str
    type: str = "string"


@dataclass
class Kind:
    names: list
    abouts: list
    parameters: list
    goal: str  # for thoughts
    facts: dict  # slot -> kind of values.py
    results: list
    answer: str  # quotes every fact
    asks: list = ()  # of asks.py


def p(names, value, about, type="string"):
    return Parameter(names.split(), value, about, type)


WEATHER = Kind(
    ["get_weather", "weather", "current_weather", "weather_lookup", "fetch_forecast"],
    ["Get the current weather in a city.", "Current weather for a place", "Look up the weather."],
    [p("city location place", "city", "Name of the city")],
    "the weather in {city}",
    {"temp": "small", "sky": "sky"},
    [
        '{"temperature": {temp}, "sky": "{sky}"}',
        "{temp} C, {sky}",
        "{city}: {sky}, {temp} degrees",
        '{"city": "{city}", "temp_c": {temp}, "conditions": "{sky}"}',
    ],
    "It is {temp} degrees in {city}, with {sky}.",
)
READ_FILE = Kind(
    ["read_file", "open_file", "cat_file", "get_file_contents", "file_read"],
    ["Read a file and return its text.", "Returns the content of a file", "Read a text file."],
    [p("path file filename file_path", "path", "Path of the file")],
    "the content of {path}",
    {"content": "lines"},
    ["{content}", "{content}\n", '{"content": "{content}"}'],
    "{path} says: {content}",
)
LIST_DIR = Kind(
    ["list_dir", "list_files", "ls", "list_directory", "read_dir"],
    ["List the files in a directory.", "Lists what is in a folder", "Names of files in a directory"],
    [p("path dir directory folder", "directory", "Path of the directory")],
    "the files in {path}",
    {"files": "files"},
    ["{files}", '{"files": "{files}"}', "files: {files}"],
    "{path} has these files: {files}",
)
RUN = Kind(
    ["run_command", "bash", "shell", "execute", "run_shell", "terminal"],
    ["Run a shell command.", "Execute a command and return its output", "Run a command in bash."],
    [p("command cmd", "command", "The command to run")],
    "the output of {command}",
    {"output": "output"},
    ["{output}", "{output}\n", '{"exit_code": 0, "stdout": "{output}"}'],
    "The command printed: {output}",
)
SEARCH = Kind(
    ["search_files", "grep", "search_code", "find_text", "text_search"],
    ["Search for a text in files.", "Find files that contain a text", "Search text in a directory."],
    [
        p("pattern query text", "word", "The text to look for"),
        p("path dir directory", "directory", "Where to search"),
    ],
    "files in {path} that contain {pattern}",
    {"hit": "file", "row": "integer"},
    ["{hit}:{row}: {pattern}", '{"file": "{hit}", "line": {row}}', "1 match: {hit} line {row}"],
    "I found {pattern} in {hit}, line {row}.",
)
CALCULATE = Kind(
    ["multiply", "multiply_numbers", "product", "calc_product"],
    ["Multiply two numbers.", "Returns the product of two numbers", "Product of a and b"],
    [
        p("a x first", "number", "First number", "number"),
        p("b y second", "number", "Second number", "number"),
    ],
    "{a} times {b}",
    {"product": "number"},
    ["{product}", '{"result": {product}}', "= {product}"],
    "{a} times {b} is {product}.",
)
TIME = Kind(
    ["get_time", "current_time", "clock", "time_in_city", "local_time"],
    ["Get the local time in a city.", "Current time in a place", "What time it is somewhere"],
    [p("city location place", "city", "Name of the city")],
    "the time in {city}",
    {"clock": "clock"},
    ["{clock}", '{"time": "{clock}"}', "{city} {clock}", "local time {clock}"],
    "It is {clock} in {city}.",
)
CONVERT = Kind(
    ["convert_currency", "exchange", "currency_converter", "convert_money"],
    ["Convert an amount of money.", "Convert money from one currency to another", "Exchange money."],
    [
        p("amount value", "number", "How much", "number"),
        p("from from_currency source", "currency", "Currency code of the amount"),
        p("to to_currency target", "currency", "Currency code that is wanted"),
    ],
    "{amount} {from} in {to}",
    {"sum": "decimal"},
    ["{sum}", '{"amount": {sum}, "currency": "{to}"}', "{sum} {to}", '{"result": {sum}}'],
    "{amount} {from} is {sum} {to}.",
)
SEND = Kind(
    ["send_message", "send_email", "mail", "post_message", "write_email"],
    ["Send a message to someone.", "Send a text to a person", "Sends an email."],
    [
        p("to recipient receiver", "person", "Who gets it"),
        p("text message body content", "phrase", "What to say"),
    ],
    "a message to {to}",
    {"id": "identifier"},
    ['{"status": "sent", "id": "{id}"}', "sent, id {id}", "ok {id}", '{"message_id": "{id}"}'],
    "I sent it to {to}. The message has the id {id}.",
)
TICKET = Kind(
    ["get_ticket", "ticket_info", "fetch_issue", "lookup_ticket", "show_issue"],
    ["Get a ticket by its id.", "State and owner of a ticket", "Look up an issue."],
    [p("id ticket ticket_id issue", "identifier", "Id of the ticket")],
    "ticket {id}",
    {"state": "state", "owner": "person"},
    [
        '{"id": "{id}", "state": "{state}", "owner": "{owner}"}',
        "{id}: {state}, owner {owner}",
        '{"owner": "{owner}", "status": "{state}"}',
    ],
    "Ticket {id} is {state}. {owner} works on it.",
)
EVENT = Kind(
    ["create_event", "add_event", "calendar_add", "new_appointment", "schedule"],
    ["Add an event to the calendar.", "Create a calendar entry", "Schedule an appointment."],
    [
        p("title name subject", "title", "What it is about"),
        p("date day", "date", "Day, as YYYY-MM-DD"),
        p("time start", "clock", "Hour and minute"),
    ],
    "an event {title}",
    {"id": "identifier"},
    ['{"event_id": "{id}"}', "created {id}", '{"status": "ok", "id": "{id}"}'],
    "{title} is in the calendar on {date} at {time}. The event has the id {id}.",
)
STOCK = Kind(
    ["stock_price", "get_quote", "share_price", "get_stock", "quote"],
    ["Get the price of a stock.", "Current price of a share", "Stock price by symbol"],
    [p("symbol ticker code", "ticker", "Symbol of the stock")],
    "the price of {symbol}",
    {"price": "decimal"},
    ["{price}", '{"symbol": "{symbol}", "price": {price}}', "{symbol} {price}", '{"price": {price}}'],
    "{symbol} costs {price}.",
)
TRANSLATE = Kind(
    ["translate", "translate_text", "translator", "to_language"],
    ["Translate a text.", "Translate text into another language", "Translates words."],
    [
        p("text input source", "phrase", "What to translate"),
        p("language lang target_language", "language", "Language that is wanted"),
    ],
    "{text} in {language}",
    {"words": "title"},
    ["{words}", '{"translation": "{words}"}', "{language}: {words}"],
    "In {language} it is: {words}",
)
WEB_SEARCH = Kind(
    ["web_search", "search_web", "internet_search", "search_online"],
    ["Search the web.", "Search the internet and return the best page", "Web search"],
    [p("query q search", "title", "What to search for")],
    "pages about {query}",
    {"page": "url"},
    ['{"title": "{query}", "url": "{page}"}', "1. {page}", "best result: {page}"],
    "The best page about {query} is {page}",
)
CONTACT = Kind(
    ["lookup_contact", "find_contact", "get_contact", "address_book", "find_person"],
    ["Look up a person's contact data.", "Find the email and phone of someone", "Address book"],
    [p("name person who", "full_name", "Name of the person")],
    "the contact of {name}",
    {"email": "email", "phone": "phone"},
    [
        '{"name": "{name}", "email": "{email}", "phone": "{phone}"}',
        "{email}, {phone}",
        "{name}: phone {phone}, email {email}",
    ],
    "{name} can be reached at {email} or {phone}.",
)
FLIGHT = Kind(
    ["find_flight", "search_flights", "flight_search", "flights"],
    ["Find a flight.", "Search flights between two cities", "Next flight from one city to another"],
    [
        p("origin from departure", "city", "City to start from"),
        p("destination to arrival", "city", "City to fly to"),
        p("date day", "date", "Day, as YYYY-MM-DD"),
    ],
    "a flight from {origin} to {destination}",
    {"flight": "identifier", "clock": "clock"},
    [
        '{"flight": "{flight}", "departs": "{clock}"}',
        "{flight} at {clock}",
        "flight {flight}, departure {clock}",
    ],
    "Flight {flight} leaves {origin} for {destination} at {clock}.",
)
DELETE = Kind(
    ["delete_file", "remove_file", "rm", "file_delete"],
    ["Delete a file.", "Remove a file for good", "Deletes the file at a path"],
    [p("path file filename file_path", "path", "Path of the file")],
    "deleting {path}",
    {"bytes": "integer"},
    ["deleted, {bytes} bytes freed", '{"freed": {bytes}}', "ok, freed {bytes} bytes"],
    "I deleted {path}. That freed {bytes} bytes.",
)
TIMER = Kind(
    ["set_timer", "start_timer", "timer", "countdown"],
    ["Set a timer.", "Start a timer of some minutes", "Timer that rings after some minutes"],
    [p("minutes duration mins", "integer", "How many minutes", "integer")],
    "a timer of {minutes} minutes",
    {"clock": "clock"},
    ['{"rings_at": "{clock}"}', "timer set, rings at {clock}", "ends {clock}"],
    "The timer runs for {minutes} minutes and rings at {clock}.",
)
WRITE_FILE = Kind(
    ["write_file", "save_file", "create_file", "file_write"],
    ["Write a text to a file.", "Create a file with some text", "Save text in a file."],
    [
        p("path file filename file_path", "path", "Path of the file"),
        p("content text data", "phrase", "What to write"),
    ],
    "writing {path}",
    {"bytes": "integer"},
    ["wrote {bytes} bytes", '{"written": {bytes}}', "saved, {bytes} bytes"],
    "I wrote {bytes} bytes to {path}.",
)
COUNT = Kind(
    ["count_lines", "line_count", "wc", "count_file_lines"],
    ["Count the lines of a file.", "How many lines a file has", "Number of lines in a file"],
    [p("path file filename file_path", "path", "Path of the file")],
    "the number of lines in {path}",
    {"lines": "integer"},
    ["{lines}", '{"lines": {lines}}', "{lines} lines", "{lines} {path}"],
    "{path} has {lines} lines.",
)
OPEN_URL = Kind(
    ["fetch_url", "open_url", "get_page", "http_get", "browse"],
    ["Fetch a web page.", "Open an address and return the page's title", "Get a page by its URL"],
    [p("url address link", "url", "Address of the page")],
    "the page {url}",
    {"heading": "phrase"},
    ['{"status": 200, "title": "{heading}"}', "{heading}", "200 OK: {heading}"],
    "The page {url} says: {heading}",
)
PING = Kind(
    ["ping", "ping_host", "check_host", "latency"],
    ["Ping a host.", "Check whether a host answers and how fast", "Measure the latency to a host"],
    [p("host hostname server", "host", "Name of the host")],
    "the latency to {host}",
    {"ms": "number"},
    ["{ms} ms", '{"alive": true, "ms": {ms}}', "{host} answered in {ms} ms"],
    "{host} answers in {ms} ms.",
)
RESTART = Kind(
    ["restart_service", "service_restart", "restart", "reload_service"],
    ["Restart a service.", "Restarts a system service", "Stop and start a service again"],
    [p("service name unit", "word", "Name of the service")],
    "restarting {service}",
    {"pid": "integer"},
    ["restarted, pid {pid}", '{"status": "running", "pid": {pid}}', "{service} started ({pid})"],
    "{service} runs again. Its process id is {pid}.",
)
TRACK = Kind(
    ["track_package", "parcel_status", "track", "shipment_status"],
    ["Track a package.", "Where a parcel is", "Find a shipment by its number"],
    [p("number tracking_number code", "identifier", "Number of the parcel")],
    "the parcel {number}",
    {"where": "city", "date": "date"},
    [
        '{"location": "{where}", "arrives": "{date}"}',
        "in {where}, arrives {date}",
        "{number}: {where}, delivery on {date}",
    ],
    "The parcel {number} is in {where} and arrives on {date}.",
)
KINDS = {
    name.lower(): replace(kind, asks=ASKS[name.lower()])
    for name, kind in list(globals().items())
    if isinstance(kind, Kind)
}


@dataclass
class Chain:
    first: str
    second: str
    feeds: tuple  # (fact of the first, parameter of the second)

    @property
    def asks(self):
        return CHAIN_ASKS[self.first, self.second]


CHAINS = [
    Chain("search", "read_file", ("hit", "path")),
    Chain("ticket", "contact", ("owner", "name")),
    Chain("ticket", "send", ("owner", "to")),
    Chain("web_search", "open_url", ("page", "url")),
    Chain("stock", "convert", ("price", "amount")),
    Chain("track", "weather", ("where", "city")),
    Chain("track", "time", ("where", "city")),
    Chain("read_file", "write_file", ("content", "content")),
]

# Tools that a request for another kind could also be answered with.
ALIKE = [
    {"read_file", "run", "search"}, {"list_dir", "run"}, {"count", "run", "read_file"},
    {"delete", "run"}, {"write_file", "run"}, {"ping", "run"}, {"restart", "run"},
    {"web_search", "open_url"}, {"time", "weather"}, {"search", "web_search"}, {"track", "ticket"},
    {"read_file", "count", "open_url"},
]  # fmt: skip
