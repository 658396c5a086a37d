//! Word lists of the lexicon. Each string is a list of words separated by spaces.

/// Function words of English that the languages of [`OTHER_LANGUAGE_WORDS`] do not have.
pub const ENGLISH_WORDS: &str = "the of and to how what which who when where why is are was were do does did can could \
    should would will my your his her its our their this that these those with from about into be been have has \
    had i you he she it we they there some any if than then not for on at by or a an";

/// Function words of German, French, Spanish, Italian, Portuguese and Dutch.
pub const OTHER_LANGUAGE_WORDS: &str = "der die das den dem ein eine einen einem einer und ist sind wie ich mein meine nicht kein \
    keine mit von zu zum zur für auf wo wann warum welche welcher welches kann sie wir auch bei nach aus über wird \
    le la les des un une du est sont je mon ma mes ne pas pour avec dans sur que qui quel quelle quels quelles \
    comment où quand pourquoi au aux ce cette puis el los las una uno del y es son mi mis no sin con por para qué \
    cómo dónde cuándo cuál se lo al il gli che di è sono mio mia per perché o os um uma da dos não como meu minha \
    het een van ik niet hoe mijn voor zijn";

pub const STOP_WORDS: &str = "the of and to how what which who whom whose when where why is are was were am be been being \
    do does did doing done can could should would will shall may might must my your his her its our their mine \
    yours this that these those with from about into have has had having i you he she it we they me him us them \
    there here some any if than then for on at by or a an in as so but get got getting way ways let make s t \
    give tell show find want need know like please just also really ever out up down over under off again very too take \
    taking \
    one ones thing things something someone somebody anyone people";

pub const FILLER_WORDS: &str =
    "hi hello hey please thanks thank thx ty kindly ok okay dear sorry cheers greetings pls plz";

pub const NEGATION_WORDS: &str = "not no never without cannot neither nor none nobody nothing nowhere hardly non \
    except excluding exclude excludes avoid avoiding";

pub const PREPOSITION_WORDS: &str = "to from into in on at by with without for of over under between before after than \
    versus vs as through during against within per via until since toward towards onto off about";

pub const QUANTIFIER_WORDS: &str = "all every each any only first last most least more less both either none top bottom \
    another other same different exactly least entire whole some many much few several next previous";

pub const PRONOUN_WORDS: &str =
    "i my me mine you your yours he his him she her it its we our us they their them one someone";

pub const ACTION_WORDS: &str = "cause causes caused causing lead leads led leading trigger triggers triggered cure cures \
    cured curing treat treats treated treating beat beats beaten defeat defeats defeated kill kills killed affect \
    affects affected influence influences replace replaces replaced prevent prevents prevented create creates \
    created produce produces produced precede precedes follow follows followed buy bought acquire acquires acquired \
    invade invaded invades love loves loved hate hates hated marry married call calls called send sends sent teach \
    teaches taught eat eats ate pay pays paid owe owes own owns owned sue sued sues worsen worsens improve improves \
    reduce reduces increase increases imply implies contain contains include includes divide divides divided exceed \
    exceeds cite cites cited help helps helped harm harms harmed";

pub const LOWER_BOUNDS: &str = "after since above over exceeding least more";

pub const UPPER_BOUNDS: &str = "before until till under below most less prior";

pub const CARDINALS: &[(&str, f64)] = &[
    ("zero", 0.0),
    ("two", 2.0),
    ("three", 3.0),
    ("four", 4.0),
    ("five", 5.0),
    ("six", 6.0),
    ("seven", 7.0),
    ("eight", 8.0),
    ("nine", 9.0),
    ("ten", 10.0),
    ("eleven", 11.0),
    ("twelve", 12.0),
    ("thirteen", 13.0),
    ("fourteen", 14.0),
    ("fifteen", 15.0),
    ("sixteen", 16.0),
    ("seventeen", 17.0),
    ("eighteen", 18.0),
    ("nineteen", 19.0),
    ("twenty", 20.0),
    ("thirty", 30.0),
    ("forty", 40.0),
    ("fifty", 50.0),
    ("sixty", 60.0),
    ("seventy", 70.0),
    ("eighty", 80.0),
    ("ninety", 90.0),
    ("dozen", 12.0),
    ("twice", 2.0),
    ("double", 2.0),
    ("triple", 3.0),
];

pub const MAGNITUDES: &[(&str, f64)] = &[
    ("hundred", 1e2),
    ("thousand", 1e3),
    ("k", 1e3),
    ("million", 1e6),
    ("mio", 1e6),
    ("billion", 1e9),
    ("bn", 1e9),
    ("trillion", 1e12),
];

pub const ORDINALS: &[(&str, f64)] = &[
    ("third", 3.0),
    ("fourth", 4.0),
    ("fifth", 5.0),
    ("sixth", 6.0),
    ("seventh", 7.0),
    ("eighth", 8.0),
    ("ninth", 9.0),
    ("tenth", 10.0),
    ("eleventh", 11.0),
    ("twelfth", 12.0),
    ("twentieth", 20.0),
];

/// Names of each month.
pub const MONTHS: [&str; 12] = [
    "january jan",
    "february feb",
    "march mar",
    "april apr",
    "may",
    "june jun",
    "july jul",
    "august aug",
    "september sep sept",
    "october oct",
    "november nov",
    "december dec",
];

pub const WEEKDAYS: [&str; 7] = [
    "monday mondays",
    "tuesday tuesdays",
    "wednesday wednesdays",
    "thursday thursdays",
    "friday fridays",
    "saturday saturdays",
    "sunday sundays",
];

/// Names of each day relative to today.
pub const RELATIVE_DAYS: [&str; 4] = ["today", "tomorrow", "yesterday", "tonight"];

/// Names of each unit of measure. The position is the unit's index.
pub const UNITS: &[&str] = &[
    "km kilometer kilometers kilometre kilometres kms",
    "m meter meters metre metres",
    "cm centimeter centimeters centimetre centimetres",
    "mm millimeter millimeters millimetre millimetres",
    "mile miles mi",
    "yard yards yd",
    "foot feet ft",
    "inch inches",
    "kg kilogram kilograms kilo kilos kgs",
    "g gram grams",
    "mg milligram milligrams",
    "lb lbs pound pounds",
    "oz ounce ounces",
    "ton tons tonne tonnes",
    "l liter liters litre litres",
    "ml milliliter milliliters millilitre millilitres",
    "gallon gallons",
    "cup cups",
    "celsius c",
    "fahrenheit f",
    "kelvin",
    "second seconds sec secs",
    "minute minutes min mins",
    "hour hours hr hrs h",
    "day days",
    "week weeks",
    "month months",
    "year years yr yrs",
    "percent percentage pct",
    "dollar dollars usd",
    "euro euros eur",
    "gbp quid",
    "rupee rupees inr rs",
    "yen jpy",
    "byte bytes",
    "kb kilobyte kilobytes",
    "mb megabyte megabytes",
    "gb gigabyte gigabytes",
    "tb terabyte terabytes",
    "mph",
    "kph kmh",
    "acre acres",
    "hectare hectares",
    "watt watts w",
    "kw kilowatt kilowatts",
    "word words",
    "sentence sentences",
    "paragraph paragraphs",
    "page pages",
];

pub const SPOKEN_LANGUAGES: &str = "english french german spanish italian portuguese dutch russian chinese mandarin \
    cantonese japanese korean arabic hindi urdu bengali tamil telugu turkish polish swedish norwegian danish finnish \
    greek hebrew czech hungarian romanian ukrainian vietnamese thai indonesian malay swahili latin persian farsi";

/// Names of each programming language, without one-letter names.
pub const PROGRAMMING_LANGUAGES: &[&str] = &[
    "python py python3",
    "javascript js",
    "typescript ts",
    "java",
    "golang",
    "rust",
    "ruby",
    "php",
    "perl",
    "kotlin",
    "scala",
    "haskell",
    "matlab",
    "bash",
    "powershell",
    "sql",
    "fortran",
    "lua",
    "julia",
    "elixir",
    "erlang",
    "clojure",
    "cobol",
];

/// Names of each format of an answer.
pub const FORMATS: &[&str] = &[
    "json",
    "xml",
    "csv",
    "yaml yml",
    "html",
    "markdown",
    "latex",
    "bullet bullets",
    "haiku haikus",
    "poem poems",
    "song songs lyrics",
    "essay essays",
    "limerick",
    "sonnet",
    "flowchart",
    "regex",
    "screenplay",
    "tweet",
    "emoji emojis",
];

pub const QUESTION_WORDS: [&str; 9] =
    ["what", "which", "who whom", "whose", "when", "where", "why", "how", "whether"];

/// Groups of opposites, each with one string per side. Words of different sides of a group have different meanings.
pub const OPPOSITES: &[&[&str]] = &[
    &[
        "enable enabled enables enabling activate activated activating allow allows allowed allowing permit permits",
        "disable disabled disables disabling deactivate deactivated deactivating block blocks blocked blocking \
         forbid forbidden prohibit ban banned deny denied",
    ],
    &["on", "off"],
    &[
        "increase increases increased increasing raise raises raised raising grow grows growing gain gains gaining \
         boost boosts boosting enlarge expand more larger bigger higher greater longer speed",
        "decrease decreases decreased decreasing reduce reduces reduced reducing lower lowers lowered lowering lose \
         loses losing shrink shrinks less smaller fewer shorter slow",
    ],
    &[
        "add adds added adding insert inserts inserting append install installs installed installing create creates \
         creating include includes including attach",
        "remove removes removed removing delete deletes deleted deleting uninstall uninstalls uninstalling drop \
         detach destroy erase omit",
    ],
    &["before prior", "after following"],
    &[
        "max maximum highest largest biggest greatest most top longest tallest oldest best heaviest hottest fastest",
        "min minimum lowest smallest least fewest bottom shortest youngest worst lightest coldest slowest",
    ],
    &["first earliest oldest", "last latest newest"],
    &["ascending asc", "descending desc"],
    &["open opens opening opened", "close closes closing closed"],
    &["start starts starting started begin begins", "stop stops stopping stopped end ends ending quit"],
    &["buy buys buying bought purchase", "sell sells selling sold"],
    &["win wins winning won", "lose loses losing lost"],
    &["love loves loved", "hate hates hated"],
    &["good", "bad"],
    &[
        "advantage advantages pros benefits benefit strengths",
        "disadvantage disadvantages cons drawbacks weaknesses",
    ],
    &["with", "without"],
    &["always", "never"],
    &["accept accepts accepted accepting", "reject rejects rejected rejecting decline"],
    &["push pushes pushing", "pull pulls pulling"],
    &["import imports importing imported", "export exports exporting exported"],
    &["upload uploads uploading", "download downloads downloading"],
    &["encrypt encrypts encryption encrypting", "decrypt decrypts decryption decrypting"],
    &["encode encodes encoding", "decode decodes decoding"],
    &["lock locks locking", "unlock unlocks unlocking"],
    &["show shows showing", "hide hides hiding hidden"],
    &["public", "private"],
    &["internal", "external"],
    &["input inputs", "output outputs"],
    &["left", "right"],
    &["north northern", "south southern", "east eastern", "west western"],
    &["male men man boy boys", "female women woman girl girls"],
    &["husband boyfriend", "wife girlfriend"],
    &["mother mom mum", "father dad"],
    &["brother brothers", "sister sisters"],
    &["hot warm", "cold cool"],
    &["high", "low"],
    &["fast quick", "slow"],
    &["old", "new"],
    &["early", "late"],
    &["long", "short"],
    &["rich", "poor"],
    &["true", "false"],
    &["positive", "negative"],
    &["even", "odd"],
    &["same", "different"],
    &["inside indoor indoors", "outside outdoor outdoors"],
    &["above", "below"],
    &["cheap cheapest", "expensive"],
    &["legal", "illegal"],
    &["formal", "informal casual friendly"],
    &["borrow borrowing", "lend lending"],
    &["arrive arrives arriving arrival arrivals", "depart departs departing departure departures leaving"],
    &["strong strongest", "weak weakest"],
    &["hard difficult", "easy"],
    &["morning", "evening night"],
    &["birth born birthplace birthday", "death died die"],
    &["daily", "weekly", "monthly", "yearly annual annually"],
    &["uppercase", "lowercase"],
    &["vertical vertically", "horizontal horizontally"],
    &["connect connects connecting", "disconnect disconnects disconnecting"],
    &["subscribe subscribing", "unsubscribe unsubscribing"],
    &["follow", "unfollow"],
    &["pass passing passed", "fail failing failed"],
    &["summer", "winter"],
    &["married", "single", "divorced"],
    &["vegan", "vegetarian"],
    &["introvert introverts", "extrovert extroverts"],
    &["optimist", "pessimist"],
    &["undergraduate undergrad", "graduate grad postgraduate"],
    &["keep keeps keeping kept preserve preserving", "discard discards discarding discarded"],
];
