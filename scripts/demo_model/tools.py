"""The kinds of tools that the dialogues are about, with everything that is said around them.

`[a|b]` is a choice, `{slot}` a value: a parameter of the call or a fact of the result. In every
list of requests (`asks`) each fourth phrasing is kept from training and used by the evaluation.
"""

from dataclasses import dataclass


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
    asks: list
    facts: dict  # slot -> kind of values.py
    results: list
    answer: str  # quotes every fact


def p(names, value, about, type="string"):
    return Parameter(names.split(), value, about, type)


WEATHER = Kind(
    ["get_weather", "weather", "current_weather", "weather_lookup", "fetch_forecast"],
    ["Get the current weather in a city.", "Current weather for a place", "Look up the weather."],
    [p("city location place", "city", "Name of the city")],
    "the weather in {city}",
    [
        "[What is|What's|Tell me|Check] the weather [in|for] {city}[?|, please.|]",
        "How is the weather in {city} [today|now|right now]?",
        "[Is it warm|Is it cold|Does it rain] in {city}[ today|]?",
        "I [travel|am going] to {city}, what will the weather be like?",
        "weather {city}",
        "What temperature [is it|do they have] in {city}?",
        "Do I need [an umbrella|a coat] in {city}?",
        "Give me a forecast for {city}[.|]",
    ],
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
    [
        "[Read|Open|Show|Show me|Print] {path}[, please.|.|]",
        "[What is|What's] in [the file |]{path}?",
        "[Can|Could] you [read|open|show me] the file {path}?",
        "I want to see [what is inside|the text of] {path}.",
        "What does {path} [say|contain]?",
        "[Please read|Please open|Load] {path} and tell me what it says.",
        "cat {path}",
        "Have a look into {path}, please.",
    ],
    {"content": "lines"},
    ["{content}", "{content}\n", '{"content": "{content}"}'],
    "{path} says: {content}",
)
LIST_DIR = Kind(
    ["list_dir", "list_files", "ls", "list_directory", "read_dir"],
    ["List the files in a directory.", "Lists what is in a folder", "Names of files in a directory"],
    [p("path dir directory folder", "directory", "Path of the directory")],
    "the files in {path}",
    [
        "[List|Show|Show me] the files in {path}[, please.|.|]",
        "[What files are|Which files are|What is] in the [directory|folder] {path}?",
        "ls {path}",
        "What do we have in the directory {path}?",
        "[Which|What] files does {path} have?",
        "List {path}[.|]",
        "Give me the names of all files in {path}.",
        "What lies in the folder {path}?",
    ],
    {"files": "files"},
    ["{files}", '{"files": "{files}"}', "files: {files}"],
    "{path} has these files: {files}",
)
RUN = Kind(
    ["run_command", "bash", "shell", "execute", "run_shell", "terminal"],
    ["Run a shell command.", "Execute a command and return its output", "Run a command in bash."],
    [p("command cmd", "command", "The command to run")],
    "the output of {command}",
    [
        "[Run|Execute|Please run] `{command}`[.|, please.|]",
        "[Run|Execute] {command}",
        "What does `{command}` [print|say|return]?",
        "[Can|Could] you [run|execute] `{command}` for me?",
        "[Run the command|Execute the command] `{command}` and tell me the result.",
        'run "{command}"',
        "I need the output of `{command}`.",
        "Try `{command}` in the shell and show me what comes out.",
    ],
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
    [
        "[Search|Look] for {pattern} in {path}[.|, please.|]",
        "[Find|Show me] {pattern} in {path}",
        "Which file[s|] in {path} [contain|mention|use] {pattern}?",
        "Search through {path} and find {pattern}.",
        "grep {pattern} {path}",
        'Where in {path} is "{pattern}"[ used|]?',
        "Does anything in {path} mention {pattern}?",
        "I am looking for the text {pattern} somewhere in {path}.",
    ],
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
    [
        "[What is|What's|Compute|Calculate] {a} times {b}[?|]",
        "[What is|What's|Compute] {a} * {b}[?|]",
        "Multiply {a} [by|with|and] {b}[.|, please.|]",
        "How much is {a} multiplied by {b}?",
        "[I need|Give me] the product of {a} and {b}.",
        "{a} x {b} = ?",
        "{a} times {b}",
        "Please work out {a} times {b} for me.",
    ],
    {"product": "number"},
    ["{product}", '{"result": {product}}', "= {product}"],
    "{a} times {b} is {product}.",
)
TIME = Kind(
    ["get_time", "current_time", "clock", "time_in_city", "local_time"],
    ["Get the local time in a city.", "Current time in a place", "What time it is somewhere"],
    [p("city location place", "city", "Name of the city")],
    "the time in {city}",
    [
        "[What time is it|What's the time] in {city}[ now|]?",
        "[Tell me|Give me|Check] the time in {city}[.|, please.|]",
        "time in {city}",
        "How late is it in {city}?",
        "[What is|What's] the local time in {city}?",
        "Is it [night|morning|late] in {city} now?",
        "I want to call someone in {city}, what time is it there?",
        "What do the clocks in {city} show?",
    ],
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
    [
        "[Convert|Change|Exchange] {amount} {from} [to|into] {to}[.|, please.|]",
        "How [much|many] [is|are] {amount} {from} in {to}?",
        "[What is|What's] {amount} {from} in {to}?",
        "How much {to} do I get for {amount} {from}?",
        "{amount} {from} to {to}",
        "I have {amount} {from}, how much is [that|it] in {to}?",
        "[Tell me|Show me] what {amount} {from} is worth in {to}.",
        "Please turn {amount} {from} into {to}.",
    ],
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
    [
        "[Tell|Write to] {to}: {text}",
        "[Tell|Let] {to} [know |]that {text}[.|]",
        '[Send|Write] "{text}" to {to}[.|, please.|]',
        "Message {to}: {text}",
        '[Send|Write] {to} a message: "{text}"',
        "[Send|Write] a message to {to} that says {text}",
        'Please tell {to} "{text}".',
        'I want {to} to read this: "{text}"',
    ],
    {"id": "identifier"},
    ['{"status": "sent", "id": "{id}"}', "sent, id {id}", "ok {id}", '{"message_id": "{id}"}'],
    "I sent it to {to}. The message has the id {id}.",
)
TICKET = Kind(
    ["get_ticket", "ticket_info", "fetch_issue", "lookup_ticket", "show_issue"],
    ["Get a ticket by its id.", "State and owner of a ticket", "Look up an issue."],
    [p("id ticket ticket_id issue", "identifier", "Id of the ticket")],
    "ticket {id}",
    [
        "[What is|What's] the state of [ticket|issue] {id}?",
        "[Show|Show me|Open|Check] [ticket|issue] {id}[.|, please.|]",
        "Who [works on|owns] [ticket|issue] {id}?",
        "How far is [ticket|issue] {id}?",
        "[Look up|Get] the [ticket|issue] {id}[.|]",
        "Is [ticket|issue] {id} [done|closed|open]?",
        "ticket {id}",
        "Tell me about the ticket with the number {id}.",
    ],
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
    [
        "[Add|Create|Schedule] an event {title} on {date} at {time}[.|, please.|]",
        'Put "{title}" [in|into] my calendar on {date} at {time}[.|]',
        "[Plan|Schedule] {title} for {date}, {time}[.|]",
        "I have {title} on {date} at {time}, add it to my calendar.",
        "[Make|Create] an appointment on {date} at {time}: {title}",
        'Schedule "{title}" at {time} on {date}[.|]',
        "New event on {date} at {time}: {title}",
        'On {date} at {time} there is "{title}". Please note it in the calendar.',
    ],
    {"id": "identifier"},
    ['{"event_id": "{id}"}', "created {id}", '{"status": "ok", "id": "{id}"}'],
    "{title} is in the calendar on {date} at {time}. The event has the id {id}.",
)
STOCK = Kind(
    ["stock_price", "get_quote", "share_price", "get_stock", "quote"],
    ["Get the price of a stock.", "Current price of a share", "Stock price by symbol"],
    [p("symbol ticker code", "ticker", "Symbol of the stock")],
    "the price of {symbol}",
    [
        "[What is|What's|Check|Show] the [stock |share |]price of {symbol}[?|]",
        "How much is [a share of |]{symbol}?",
        "[What does|How much does] {symbol} cost?",
        "At what price does {symbol} trade?",
        "[Get|Give me|Show me] [a quote for|the quote of] {symbol}[.|]",
        "stock price {symbol}",
        "How is {symbol} doing on the market?",
        "What do I pay for one share of {symbol}?",
    ],
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
    [
        '[Translate|Put] "{text}" [to|into] {language}[.|, please.|]',
        'How do you say "{text}" in {language}?',
        '[What is|What\'s] "{text}" in {language}?',
        'Say "{text}" in {language}, please.',
        "Translate into {language}: {text}",
        "Translate to {language}: {text}",
        'I need "{text}" in {language}.',
        'Please give me the {language} for "{text}".',
    ],
    {"words": "title"},
    ["{words}", '{"translation": "{words}"}', "{language}: {words}"],
    "In {language} it is: {words}",
)
WEB_SEARCH = Kind(
    ["web_search", "search_web", "internet_search", "search_online"],
    ["Search the web.", "Search the internet and return the best page", "Web search"],
    [p("query q search", "title", "What to search for")],
    "pages about {query}",
    [
        "[Search|Look on] the web for {query}[.|, please.|]",
        "[Search|Look] online for {query}[.|]",
        'Search the internet for "{query}"[.|]',
        "Find a web page about {query}.",
        "[Find|Show me] something about {query} on the web[.|]",
        "web search {query}",
        "What does the internet say about {query}?",
        'Look up "{query}" on the web.',
    ],
    {"page": "url"},
    ['{"title": "{query}", "url": "{page}"}', "1. {page}", "best result: {page}"],
    "The best page about {query} is {page}",
)
CONTACT = Kind(
    ["lookup_contact", "find_contact", "get_contact", "address_book", "find_person"],
    ["Look up a person's contact data.", "Find the email and phone of someone", "Address book"],
    [p("name person who", "full_name", "Name of the person")],
    "the contact of {name}",
    [
        "[What is|What's] the [email|email address|phone number] of {name}?",
        "How can I [reach|contact] {name}?",
        "[Find|Look up|Get] [the contact of|the address of] {name}[.|, please.|]",
        "Do we have an email address for {name}?",
        "[Give me|Show me] the contact data of {name}[.|]",
        "Look {name} up in the address book[.|]",
        "contact {name}",
        "Where do I write to if I want to reach {name}?",
    ],
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
    [
        "[Find|Search|Get] [me |]a flight from {origin} to {destination} on {date}[.|, please.|]",
        "I [want|have] to fly from {origin} to {destination} on {date}.",
        "[Which|What] flights go from {origin} to {destination} on {date}?",
        "How do I fly to {destination} from {origin} on {date}?",
        "flight {origin} to {destination}, {date}",
        "On {date} I fly from {origin} to {destination}. Which flight is there?",
        "Is there a flight to {destination} from {origin} on {date}?",
        "I need to be in {destination} on {date}, and I start in {origin}. Find a flight.",
    ],
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
    [
        "[Delete|Remove|Erase] {path}[.|, please.|]",
        "[Delete|Remove] the file {path}[.|]",
        "Please [delete|remove|get rid of] {path}.",
        "I do not need {path} any more, remove it.",
        "[Can|Could] you [delete|remove] {path}?",
        "rm {path}",
        "{path} can go, delete it.",
        "Throw away {path}, please.",
    ],
    {"bytes": "integer"},
    ["deleted, {bytes} bytes freed", '{"freed": {bytes}}', "ok, freed {bytes} bytes"],
    "I deleted {path}. That freed {bytes} bytes.",
)
TIMER = Kind(
    ["set_timer", "start_timer", "timer", "countdown"],
    ["Set a timer.", "Start a timer of some minutes", "Timer that rings after some minutes"],
    [p("minutes duration mins", "integer", "How many minutes", "integer")],
    "a timer of {minutes} minutes",
    [
        "[Set|Start] a timer [for|of] {minutes} minutes[.|, please.|]",
        "[Remind|Wake|Call] me in {minutes} minutes[.|]",
        "timer {minutes} minutes",
        "Count down {minutes} minutes.",
        "{minutes} minutes timer[, please.|]",
        "Please [set|start] a {minutes} minute timer.",
        "I need a timer that rings in {minutes} minutes.",
        "Let something ring after {minutes} minutes.",
    ],
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
    [
        '[Write|Save|Put] "{content}" [to|into] {path}[.|, please.|]',
        '[Write|Save|Put] "{content}" [to|in] the file {path}[.|]',
        '[Create|Make] [a file |]{path} with the text "{content}"[.|]',
        "Make a file called {path} that says {content}",
        'Create the file {path} that contains "{content}"[.|]',
        "Save this as {path}: {content}",
        'Please put the text "{content}" into {path}.',
        'I want a file {path}, and in it should stand "{content}".',
    ],
    {"bytes": "integer"},
    ["wrote {bytes} bytes", '{"written": {bytes}}', "saved, {bytes} bytes"],
    "I wrote {bytes} bytes to {path}.",
)
COUNT = Kind(
    ["count_lines", "line_count", "wc", "count_file_lines"],
    ["Count the lines of a file.", "How many lines a file has", "Number of lines in a file"],
    [p("path file filename file_path", "path", "Path of the file")],
    "the number of lines in {path}",
    [
        "How many lines [does {path} have|has {path}|are in {path}]?",
        "[Count|Tell me] the lines [of|in] {path}[.|, please.|]",
        "[What is|What's] the number of lines [in|of] {path}?",
        "How long is {path}, in lines?",
        "wc -l {path}",
        "Count how many lines {path} has[.|]",
        "[I need|Give me] the line count of {path}.",
        "Of how many lines does {path} consist?",
    ],
    {"lines": "integer"},
    ["{lines}", '{"lines": {lines}}', "{lines} lines", "{lines} {path}"],
    "{path} has {lines} lines.",
)
OPEN_URL = Kind(
    ["fetch_url", "open_url", "get_page", "http_get", "browse"],
    ["Fetch a web page.", "Open an address and return the page's title", "Get a page by its URL"],
    [p("url address link", "url", "Address of the page")],
    "the page {url}",
    [
        "[Open|Fetch|Get|Load] {url}[ for me|, please|]",
        "What is [on|at] {url} ?",
        "[Can|Could] you [open|fetch|read] {url} ?",
        "Visit {url} and tell me what is there.",
        "[Show me|Summarize] [the page |]{url}",
        "What does the page {url} say?",
        "[Go to|Look at] {url}",
        "Have a look at {url} and report.",
    ],
    {"heading": "phrase"},
    ['{"status": 200, "title": "{heading}"}', "{heading}", "200 OK: {heading}"],
    "The page {url} says: {heading}",
)
PING = Kind(
    ["ping", "ping_host", "check_host", "latency"],
    ["Ping a host.", "Check whether a host answers and how fast", "Measure the latency to a host"],
    [p("host hostname server", "host", "Name of the host")],
    "the latency to {host}",
    [
        "[Ping|Check] {host}[.|, please.|]",
        "Is {host} [up|alive|online]?",
        "[Does|Can you check if] {host} [answer|respond]?",
        "Can we reach {host}?",
        "How fast does {host} [answer|respond]?",
        "[What is|What's] the latency to {host}?",
        "Please ping the host {host}[.|]",
        "Find out if the server {host} is still there.",
    ],
    {"ms": "number"},
    ["{ms} ms", '{"alive": true, "ms": {ms}}', "{host} answered in {ms} ms"],
    "{host} answers in {ms} ms.",
)
RESTART = Kind(
    ["restart_service", "service_restart", "restart", "reload_service"],
    ["Restart a service.", "Restarts a system service", "Stop and start a service again"],
    [p("service name unit", "word", "Name of the service")],
    "restarting {service}",
    [
        "[Restart|Please restart] [the service |]{service}[.|, please.|]",
        "[Restart|Reload] the {service} service[.|]",
        "[Can|Could] you restart {service}?",
        "Turn {service} off and on again.",
        "The service {service} hangs, restart it[.|]",
        "{service} does not answer, [please |]restart it.",
        "Give the service {service} a restart.",
        "I think the service {service} needs a fresh start.",
    ],
    {"pid": "integer"},
    ["restarted, pid {pid}", '{"status": "running", "pid": {pid}}', "{service} started ({pid})"],
    "{service} runs again. Its process id is {pid}.",
)
TRACK = Kind(
    ["track_package", "parcel_status", "track", "shipment_status"],
    ["Track a package.", "Where a parcel is", "Find a shipment by its number"],
    [p("number tracking_number code", "identifier", "Number of the parcel")],
    "the parcel {number}",
    [
        "Where is [my|the] [package|parcel] {number}?",
        "[Track|Find] [package|parcel] {number}[.|, please.|]",
        "When does [my|the] [package|parcel] {number} arrive?",
        "Has parcel {number} been seen anywhere?",
        "[Check|Show] the [package|parcel] {number}[.|]",
        "track {number}",
        "[What is|What's] the status of [package|parcel] {number}?",
        "I wait for a package, its number is {number}. Where is it?",
    ],
    {"where": "city", "date": "date"},
    [
        '{"location": "{where}", "arrives": "{date}"}',
        "in {where}, arrives {date}",
        "{number}: {where}, delivery on {date}",
    ],
    "The parcel {number} is in {where} and arrives on {date}.",
)
KINDS = {
    name.lower(): kind for name, kind in list(globals().items()) if isinstance(kind, Kind)
}


@dataclass
class Chain:
    first: str
    second: str
    feeds: tuple  # (fact of the first, parameter of the second)
    asks: list  # slots are 1.NAME for the first tool's parameters, 2.NAME for the second's


CHAINS = [
    Chain("search", "read_file", ("hit", "path"), [
        "[Find|Search] the file in {1.path} that contains {1.pattern} and [read|open|show] it[.|, please.|]",
        "[Search|Look] for {1.pattern} in {1.path}, then [read|open] the file[.|]",
        "[Read|Show me] the file in {1.path} that mentions {1.pattern}[.|]",
        "Look through {1.path} for {1.pattern} and show me what the file with it says.",
    ]),
    Chain("ticket", "contact", ("owner", "name"), [
        "[What is|What's] the [email|phone number] of whoever works on [ticket|issue] {1.id}?",
        "[Find|Get] the contact of the owner of [ticket|issue] {1.id}[.|, please.|]",
        "Who owns [ticket|issue] {1.id}, and how can I reach them?",
        "How do I reach the person behind ticket {1.id}?",
    ]),
    Chain("ticket", "send", ("owner", "to"), [
        'Tell the owner of [ticket|issue] {1.id}: "{2.text}"',
        'Find out who owns [ticket|issue] {1.id} and tell them "{2.text}"[.|]',
        '[Send|Write] "{2.text}" to whoever works on [ticket|issue] {1.id}[.|, please.|]',
        'Whoever has ticket {1.id} should get the message "{2.text}".',
    ]),
    Chain("web_search", "open_url", ("page", "url"), [
        "[Search the web|Search online] for {1.query} and open the best page[.|, please.|]",
        "Find a page about {1.query} on the web and [open|read] it[.|]",
        "[Open|Read] the best web page about {1.query}[.|]",
        "Look online for {1.query}, and tell me what the first page says.",
    ]),
    Chain("stock", "convert", ("price", "amount"), [
        "[What is|What's] the price of {1.symbol} in {2.to}? It is quoted in {2.from}.",
        "How much is {1.symbol} in {2.to}? Its price is in {2.from}.",
        "Get the price of {1.symbol} and convert it from {2.from} to {2.to}[.|, please.|]",
        "Take the {2.from} price of {1.symbol} and tell me what it is in {2.to}.",
    ]),
    Chain("track", "weather", ("where", "city"), [
        "How is the weather where [my|the] [package|parcel] {1.number} is?",
        "[What is|What's] the weather at the place of [package|parcel] {1.number}?",
        "Find [package|parcel] {1.number} and tell me the weather there[.|]",
        "Does my parcel {1.number} get wet where it is now?",
    ]),
    Chain("track", "time", ("where", "city"), [
        "What time is it where [my|the] [package|parcel] {1.number} is?",
        "[Find|Track] [package|parcel] {1.number} and tell me the time there[.|]",
        "What's the local time at the place of [package|parcel] {1.number}?",
        "My parcel {1.number} is somewhere, what do the clocks there show?",
    ]),
    Chain("read_file", "write_file", ("content", "content"), [
        "[Copy|Duplicate] {1.path} to {2.path}[.|, please.|]",
        "[Read|Open] {1.path} and [write|save] its text to {2.path}[.|]",
        "Put the content of {1.path} into {2.path}[.|]",
        "I want what stands in {1.path} also in {2.path}.",
    ]),
]  # fmt: skip

# Tools that a request for another kind could also be answered with.
ALIKE = [
    {"read_file", "run", "search"}, {"list_dir", "run"}, {"count", "run", "read_file"},
    {"delete", "run"}, {"write_file", "run"}, {"ping", "run"}, {"restart", "run"},
    {"web_search", "open_url"}, {"time", "weather"}, {"search", "web_search"}, {"track", "ticket"},
    {"read_file", "count", "open_url"},
]  # fmt: skip
