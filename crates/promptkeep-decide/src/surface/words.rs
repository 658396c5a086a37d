//! Word lists of the comparison of surfaces: words in lower case, separated by spaces.

use std::{collections::HashSet, hash::BuildHasherDefault, sync::LazyLock};

use crate::lexicon::{WordHasher, hash};

/// A list of words.
pub struct List {
    words: &'static str,
    hashes: LazyLock<HashSet<u64, BuildHasherDefault<WordHasher>>>,
}

impl List {
    /// Returns the words.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.words.split_ascii_whitespace()
    }
}

/// Whether a word is in a list. Letters of ASCII may have any case.
pub fn is_in(list: &List, word: &str) -> bool {
    let hash = if word.bytes().any(|b| b.is_ascii_uppercase()) {
        hash(&word.to_ascii_lowercase())
    } else {
        hash(word)
    };
    list.hashes.contains(&hash)
}

macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident = $words:literal;)*) => {
        $($(#[$doc])* pub static $name: List = List {
            words: $words,
            hashes: LazyLock::new(|| $words.split_ascii_whitespace().map(hash).collect()),
        };)*
    };
}

lists! {
/// Words that are a name with a capital and another word without.
NAMES_AND_WORDS = "
    us it who aids un ai os pc pa ma oh hi la el will may go polish turkey china march august nice reading lima
    mobile lent mass earth sun moon god lord bible mercury mars venus saturn pluto neptune uranus jupiter apple
    amazon java python ruby rust swift julia pearl perl dart crystal elm basic flask spark hive storm beam docker
    puppet chef salt helm electron react angular express node next spring unity unreal blender maya oracle meta
    alphabet gap subway jaguar target shell windows word excel office outlook edge chrome slack zoom teams signal
    discord stripe square chase discover visa access publisher project pages numbers keynote safari opera brave
    fiddler notion bear things drive sheets docs slides forms maps photos music books news stocks notes messages
    reminders shortcuts twitter x threads tinder bumble hinge uber lyft bolt grab wish etsy bush gates jobs ford
    trump cruise cage bacon rice berry bean lamb fox wolf bird crane swan rose grace hope faith joy jack frank
    grant drew dean dale glen heath cliff rich rob sue pat ray art bob nick pete peg penny amber ivy iris lily
    daisy violet olive holly summer autumn april june job mark bill buck chip dick don gene guy hank harry jimmy
    jerry josh kit lance max mike miles norm peter randy reed rod roger sandy skip stew ted tony tom victor wade
    warren woody angel bunny candy carol charity charlotte cherry christian clay colt constant dawn destiny dolly
    dot eve fanny fern flora florence ginger hazel heather honey jade jean jewel kitty laurel melody merry mercy
    misty myrtle nova opal patience peggy poppy prudence robin rosemary sage serenity sherry sky star stella
    tiffany trinity veronica viola wren catholic orthodox democrat democratic republican liberal conservative
    labour labor green independent reform congress parliament state states house senate cabinet crown king queen
    prince pope bishop baker smith cook carpenter miller fisher hunter mason potter page parker carter cooper brown
    white black gray grey young long short strong sharp wise love stone wood woods hill lake rivers field fields
    banks wells brooks church day west east north south southern northern eastern western cork bath phoenix buffalo
    orange providence aurora split essen worms cologne champagne bordeaux burgundy hamburg frankfurter guinea
    jersey chad jordan japan chile niger wales scotch welsh swede finn advent passover titanic internet web moor
    slav tangier turk pole poles dane thai lapp czech romany cuba hungary greece georgia panama brazil afghan
    cambridge bologna parma limerick morocco madras cashmere denim delft oxford derby ascot boston manila sardine
    texas delhi reich arm weg morgen recht laut leben sie ihr ihnen ihre ihren ihrem ihrer ihres gut fest wagen
    reise reisen spinnen liebe arme arten weise floh wirt sucht dichten kosten macht los schulden würde
    constitution revolution depression renaissance reformation enlightenment restoration inquisition crusade
    crusades holocaust resistance union confederate federal allied allies axis cold pacific arctic antarctic
    equator tropic pilgrim pilgrims puritan masons freemason stoic epicurean cynic sophist platonic baroque gothic
    romantic impressionism classical modern scratch c r d haskell pascal lisp prolog ada scheme racket closure
    eclipse sublime atom ant maven gradle bamboo jenkins travis circle snap snappy gnome cinnamon mint debian arch
    fedora cobra lisa monty pepper siri alexa cortana echo nest ring tile fitbit garmin surface galaxy pixel nexus
    kindle fire stick prime netflix hulu peacock paramount discovery history national geographic time fortune
    forbes life guardian mirror times post mail telegraph metro economist nature science cell lancet brain speed
    monopoly risk clue sorry operation battleship scrabble boggle chess tag halo doom portal fortnite roblox steam
    valve blizzard epic sims civilization minecraft cats hair rent wicked grease chicago evita hamilton annie
    oliver jaws psycho alien aliens predator gravity arrival dune up coco cars frozen moana tangled bambi dumbo
    friends lost heroes bones castle suits billions succession fargo buffy charmed kiss rush yes journey heart
    europe genesis cream doors eagles police clash cure smiths band oasis blur pulp suede muse train garbage hole
    tool poison cinderella madonna seal pink adele sting bono giants jets bills bears lions packers vikings saints
    falcons panthers rams cardinals seahawks broncos chargers raiders chiefs colts texans titans jaguars ravens
    steelers browns bengals dolphins patriots cowboys twins royals tigers indians athletics angels astros rangers
    mariners rays reds cubs brewers pirates rockies padres dodgers braves marlins nationals heat magic hawks
    hornets bulls cavaliers pistons pacers bucks nuggets thunder jazz blazers suns kings warriors clippers lakers
    spurs rockets mavericks grizzlies pelicans wizards celtics nets arsenal everton inter ajax juventus orient
    rovers hearts baht won real rand lei lek lev dram pound krone franc";
/// Words that are an acronym in capitals and another word without.
ACRONYMS_AND_WORDS = "
    act sat cat arm ram pin pet led can cod dos mac wan lan pan dam jam spa sad ace add ape arc ark art ash bar bat
    bet bid bit box cab cam cap car cop cup cut dip dog don dot ear eat egg end era eve fan far fat fed fig fin fit
    fix fly fog fun gas gin gut hat hip hit hot ice ill ion jet kit lab lap law lot low mad man map mat men met mix
    mod mom mud net nil nod nun oar oil old one opt our out owl own pad pal pat pen pig pit pod pop pot pub put rap
    raw ray rig rip rod row rub sap see set sip ski sky son sub sum tab tan tap tar tax tea ten tie tin tip toe top
    toy try tub use van vet via wag war wax web win zip age aim ale all bin bug bus dad aids start basic snap salt
    lamp span scan snow peta nasty cobra posh gulag plus patriot care fast cares dream trips pact swat seal seals
    nice vista crispr mercy raid bing mime soap rest ajax aria sass less node dart spam ping trace bios bash make
    perl java sole gnome";
/// Words of [`NAMES_AND_WORDS`] that are usually ordinary at the start of a sentence.
ORDINARY_AT_START = "
    us it who will may can go mark grant chase target ring people start sorry short long young love rich strong
    sharp old day south north east west house summer autumn yes oh hi black white green brown life time books music
    photos things forms notes maps news lost friends cats rent light risk tag";
/// Acronyms whose lower case is no other word.
ACRONYMS = "
    pdf sql nasa api apis html css json xml http https url urls usa uk gdp cpu gpu usb dna rna nato fbi cia nsa atm
    vpn dns tcp udp ssh ssl tls ftp smtp imap php aws gcp ios sdk ide gui cli csv yaml svg png jpg jpeg gif mri hiv
    adhd ptsd ocd ibs bmi faq ceo cfo cto hr pr seo roi kpi sla b2b crm erp saas llm llms nlp gpt chatgpt ocr lcd
    oled hdmi ssd hdd dvd tv fifa uefa nba nfl mlb nhl ufc opec imf wto unicef unesco nyc usd eur gbp irs llc phd
    mba gpa gre gmat toefl ielts diy suv asap eta rsvp fyi btw lol omg vat rfc utf ascii regex crud orm jwt oauth
    saml ldap dhcp nat lte gps nfc rfid bbc cnn hbo ikea bmw kfc ibm sap amd hp ups dhl ussr uae rest jvm jdk npm
    kde bsd gnu gpl mit wifi covid sars aaa tsa cdc fda epa nih osha hipaa gdpr ccpa gnp cpi etf etfs ipo nft nfts
    bdsm lgbt lgbtq mbti iq eq dj mc";
/// Function words that are often emphasised with capitals and are no acronym.
EMPHASIS = "
    not never only all and but must the is are always exactly very every any this that please really best most more
    without with how what why when where do does don from for then if should could would have has was were no";
/// Names with capitals inside whose other spellings are common.
BRANDS = "
    iphone ipad imac ipod macbook macos ios youtube javascript typescript github gitlab linkedin whatsapp facebook paypal
    ebay postgresql mysql mongodb powerpoint wordpress chatgpt openai latex itunes icloud airpods tiktok onedrive
    sharepoint playstation doordash airbnb mcdonald mcdonalds deepmind nodejs graphql vscode numpy scipy pytorch tensorflow
    bitcoin ethereum dropbox instagram snapchat youtuber hotmail quickbooks photoshop jquery fastapi devops covid wifi
    kubernetes powershell ubuntu phd";
/// Words before the pronoun I.
I_BEFORE = "
    do can should would could am did will must may have if when that and where shall might because how why had was
    what as but so since while before after until than which whether";
/// Words after the pronoun I.
I_AFTER = "
    am have want need can do was would will should could did had feel think know like love live get go must may might
    cannot just use work try keep don didn";
/// Verbs that open a request.
REQUEST_VERBS = "
    tell explain give show help write list translate summarize summarise find fix make create describe compare define
    generate convert calculate compute solve check rewrite suggest recommend name provide draft outline identify analyze
    analyse review recommend answer discuss teach compose design implement debug correct proofread classify
    estimate simplify paraphrase rephrase format sort extract evaluate plan propose";
/// Words of requests about wording, in which politeness may be what the request is about.
QUOTING_WORDS = "
    say says said saying spell spelt spelled translate translation translated mean means meaning word words phrase
    phrases pronounce pronunciation lyrics song poem rewrite paraphrase rephrase correct proofread grammar
    grammatical punctuate punctuation rhyme rhymes synonym synonyms antonym polite politer politely formal informal
    sentence sentences letter letters email text reply respond quote quotes repeat type print echo output string
    count tone edit improve shorten summarize summarise classify sentiment complete continue character characters
    verb noun adverb interjection fix";
/// Words of texts about letters and marks, in which every character counts.
FORM_WORDS = "
    spell spells spelled spelt spelling misspelled misspelling misspell misspelt typo typos uppercase lowercase capitalize
    capitalise capitalized capitalised capitalization capitalisation capitals characters letters syllables vowels consonants
    anagram anagrams palindrome palindromes apostrophe apostrophes contraction contractions punctuation punctuate hyphen
    hyphens comma commas whitespace encode decode base64 md5 sha1 sha256 tokenize tokenise tokens proofread autocorrect
    grammatical grammatically ungrammatical unicode ascii";
/// Words of texts about patterns, in which a final mark counts.
PATTERN_WORDS = "
    regex regexes regexp regexps pattern patterns glob globs wildcard wildcards grep sed expression expressions fen pgn
    chess match matches notation";
/// Words of texts about code, in which names end in an exclamation mark.
CODE_WORDS = "
    macro macros method methods function functions code scheme racket lisp elixir factorial factorials operator
    operators swift vim vi julia operator command commands";
/// Common words whose typing mistakes are recognised.
COMMON = "
    ability absence absolutely academic accept acceptable access accident accommodate accommodation according
    account accountant accuracy accurate achieve acknowledge acquire across action activity actual actually address
    adequate adjust admission adolescent advantage adventure advertise advertisement advice afraid afternoon
    agreement aircraft airport alcohol allergy allowance almost already although always amateur amazing ambition
    ambulance amount analysis ancient animal announce annual another answer anxiety anxious apartment apologize
    apparent apparently appearance appetite application appointment appreciate approach appropriate approval
    approximately architect architecture area argument around arrange arrangement arrival article artificial
    ashamed aspect assessment assignment assistance assistant associate association assume astronaut athlete
    atmosphere attach attempt attendance attention attitude attorney attractive audience author automatic
    automatically available average avocado awkward backpack background bacteria balance balcony banana bandwidth
    banking bankruptcy bargain basement basically basket basketball bathroom battery beautiful because become
    bedroom before beginning behavior behaviour believe beneath benefit between beyond bicycle biggest biology
    birthday biscuit bitter blanket blizzard blood bottle boundary boyfriend bracelet breakfast breathe bridge
    brilliant broccoli broken brother browser budget building bureau burger business butter button cabbage
    calculate calculator calendar calories camera campaign cancel candidate capable capacity capital captain career
    careful carefully carpet carrot category caught ceiling celebrate cemetery century ceremony certain certainly
    certificate challenge champion change chapter character charge charity cheese chemical chemistry chicken
    childhood children chocolate choose christmas cigarette cinema circle citizen citizenship classic classroom
    climate clothes coffee colleague collect college column combine comfortable command comment commercial
    commission commitment committee common communicate communication community company comparison compete
    competition complaint complete completely complex complicated computer concentrate concept concern concert
    conclusion condition conference confidence confident confuse confusion connect connection conscience conscious
    consequence consider considerable consistent constant construct consumer contact contain content context
    continue contract control controversial convenience convenient conversation cooking correct corruption cottage
    cotton council country couple courage course cousin create creative creature credit crime criminal crisis
    criteria criticism criticize cucumber culture curious currency current currently curriculum curtain customer
    daily damage dance danger dangerous database daughter deadline debate decade deceive decide decision decrease
    defence defense defend definite definitely definition degree delete delicious deliver delivery democracy
    dentist department depend dependent deposit depression describe description desert deserve design desire
    desktop dessert destroy detail determine develop developer development device diabetes dialogue diamond
    dictionary difference different difficult difficulty digital dilemma dinner diploma direct direction directly
    director disappear disappoint disappointed disaster discipline discount discover discuss discussion disease
    distance distribute district divorce document dollar domain domestic double download dozen dramatic drawer
    dream drawing driver during eager early earthquake easily eastern economic economics economy editor education
    effect effective efficient effort eight eighth either elbow electric electrical electricity electronic element
    elephant eligible eliminate embarrass embarrassed embarrassing emergency emotion emotional emphasis employee
    employer employment empty encourage encrypt energy engine engineer engineering english enjoy enough ensure
    enter entertainment entire entrance envelope environment environmental equal equipment equivalent error escape
    especially essay essential establish estimate evening event eventually every everyone everything everywhere
    evidence exactly exaggerate exam examine example excellent except exchange excited exciting exercise existence
    expect expense expensive experience experiment expert explain explanation explore express extension external
    extra extreme extremely eyebrow facility factor factory failure fairly familiar family famous farmer fashion
    father favorite favourite feature february federal feeling female festival fiction field fifteen fifth fight
    figure final finally finance financial finger finish firewall first fitness flavor flight floor flower folder
    follow football foreign forest forever forget formula fortunately forty forward fourth fraction freedom
    freelance freeze freight french frequency frequent frequently fresh friday friend friendly friendship fridge
    frighten front frozen fruit fulfil function fundamental funeral funny furniture further future garage garbage
    garden garlic gather gauge general generally generate generation genius gentle genuine geography german giant
    girlfriend glass global golden government graduate graduation grammar grandfather grandmother graph grateful
    gravity great grocery ground group growth guarantee guard guess guest guidance guide guilty guitar habit hammer
    handle handsome happen happened happiness happy harass harassment hardware harmful headache health healthy
    hearing heart heaven heavy height helpful heritage hierarchy highlight history hobby holiday homework honest
    honey hopefully horrible horse hospital hotel household housing however human humidity humor hundred hungry
    husband hygiene hypothesis identify identity illegal illness image imagine immediate immediately immigrant
    immigration immune importance important impossible impress impression improve improvement inch include income
    increase incredible indeed independence independent indicate individual industry infection inflation influence
    inform information ingredient initial injury innocent inquiry insect inside install instance instead
    institution instruction instrument insurance integrate intelligence intelligent intend interest interested
    interesting international internet interpret interrupt interview introduce introduction invent investment
    invite invitation involve irrelevant island issue itinerary jacket january jealous jewelry journal journey
    judge judgment juice july keyboard kidney kitchen knife knowledge label ladder language laptop largest later
    laugh laughter laundry lawyer layer leader leadership learn leather leave lecture legal legend leisure lemon
    length lesson letter level liaison liberty library license licence lifestyle light likely limit liquid listen
    literature little liver living local location lonely looking lottery lovely loyalty luggage lunch machine
    magazine magic maintain maintenance major make manage management manager manner manual manufacture manufacturer
    market marketing marriage married massage material math mathematics matter maximum maybe mayor meaning measure
    measurement meat mechanic medical medicine medieval medium meeting member membership memory mental mention
    message metal method microphone microwave middle might military million millennium mind minimum minister minor
    minute miracle mirror mischievous missing mission mistake misspell mixture mobile model modern moment money
    monitor month mood moral morning mortgage mosquito mother motion motivation motor mountain mouse mouth movement
    movie multiple muscle museum mushroom music musician mutual mystery narrow nation national natural nature
    nearby nearly necessary necessarily neck needle negative neighbor neighbour neither nephew nerve nervous
    network never news newspaper nice night ninth noise normal normally north northern nothing notice noticeable
    novel november nuclear nuisance number nurse nutrition object obligation obtain obvious obviously occasion
    occasionally occupation occur occurred occurrence ocean october offer office officer official often olive
    omelette onion online opening operate operation opinion opponent opportunity oppose opposite option orange
    order ordinary organic organization organisation organize organise original other otherwise outcome outside
    overall owner oxygen package painful paint painting palace panic paper paragraph parallel parent parking
    parliament participate particular particularly partner party passenger passion passport password past patience
    patient pattern payment peace peanut pencil people pepper percent percentage perfect perform performance
    perhaps period permanent permission permit person personal personality personally personnel persuade pharmacy
    phase phenomenon philosophy phone photo photograph phrase physical physically physics piano picnic picture
    piece pillow pizza place planet plastic plate platform player playwright pleasant pleasure plumber pocket poem
    poetry point police policy polite political politician politics pollution poor popular population position
    positive possess possession possible possibly potato potatoes potential poverty powder power powerful practical
    practice prefer preference pregnancy pregnant prejudice preparation prepare prescription presence present
    president pressure pretty prevent previous price pride primary principal principle print printer priority
    prison prisoner privacy private privilege probably problem procedure proceed process produce product production
    profession professional professor profile profit program programme programmer programming progress project
    promise promote pronunciation proof proper properly property proposal protect protection protein protest proud
    provide province psychology public publicly publish pumpkin punctuation punishment purchase purple purpose
    pursue quality quantity quarter question questionnaire queue quick quickly quiet quite rabbit railway rainbow
    raise rather reach react reaction reading ready realistic reality realize realise really reason reasonable
    receipt receive received recent recently recipe recognize recognise recommend recommendation record recover
    recycle reduce refer reference referred refrigerator refund refuse regard region register regular regularly
    regulation reject relate relation relationship relative relax release relevant reliable relief religion
    religious reluctant rely remain remarkable remember remind remote remove renewable rent repair repeat
    repetition replace reply report represent republic reputation request require requirement research reservation
    resident resign resist resistance resolution resource respect respond response responsibility responsible rest
    restaurant result resume retire retirement return reveal revenue reverse review revolution reward rhyme rhythm
    ridiculous right river robot romantic roof rough round route router routine rubber running sacrifice safety
    salad salary salmon sandwich satellite satisfaction satisfy saturday sauce sausage scared scenario scene
    schedule scheme scholarship school science scientist scissors screen script search season second secret
    secretary section security select selection senior sense sensible sensitive sentence separate separately
    september sequence sergeant series serious seriously servant server service session several severe shadow
    shampoo share sheet shelf shelter shield shift shirt shock shopping short should shoulder shower siege sign
    signal signature significant silence silent silver similar similarly simple simply since sincerely singer
    single sister situation sixth skeleton skill sleep slight slightly smart smell smile smoke smoking smooth
    social society software soldier solid solution somehow someone something sometimes somewhere sophomore source
    southern souvenir space spaghetti special specialist specific specifically specimen speech speed spelling spend
    spider spirit split sponsor spoon sport spread spring square stable stadium staff stage stairs standard start
    state statement station statistics status steal steam steel stick stock stomach stone storage store storm story
    straight strange stranger strategy strawberry street strength stress stretch strict strike string strong
    structure struggle student studio study style subject submit subscribe subscription substance succeed success
    successful successfully sudden suddenly suffer sugar suggest suggestion suicide suitable summary summer sunday
    supermarket superstition supply support suppose surely surface surgeon surgery surprise surprised surround
    survey survive suspect swallow sweater sweet swimming switch symbol sympathy symptom symptoms system table
    tablet talent target teacher technical technique technology teenager telephone television temperature temporary
    tendency tennis tension terrible terrific territory terrorist testing theater theatre themselves theory
    therapist therapy therefore thief thing think third thirsty thirty thirteen thought thousand thread threat
    threshold through throughout throw thumb thursday ticket tiger tight title toast tobacco today together toilet
    tomato tomatoes tomorrow tongue tonight toothache topic total touch tough tourist toward towards towel tower
    trade tradition traditional traffic tragedy train trainer training transfer transferred transform transition
    translate translation transport transportation travel traveler treasure treat treatment triangle trick trouble
    truck truly trust truth tuesday tunnel turkey twelfth twelve twenty typical typically tyranny ugly ultimate
    umbrella unable uncle under understand understanding underwear unemployed unemployment unforeseen unfortunately
    unhappy uniform unique unit united universe university unknown unless unlikely unnecessary until unusual update
    upgrade upload upper upset urban urgent useful useless usually vacation vaccine vacuum valley valuable value
    variable variety various vegetable vegetables vehicle version vertical victim victory video view village
    violence violent virtual virus visible vision visit visitor vitamin vocabulary voice volcano volume volunteer
    voter wages waiter wallet warning warranty washing waste watch water weakness wealth weapon wear weather
    website wedding wednesday week weekend weigh weight weird welcome welfare western whale wheel when where
    whether which while whole whose width wilful window winner winter wireless wisdom within without witness woman
    women wonder wonderful wooden worker workshop world worried worry worse worst worth would wrist write writer
    writing written wrong yacht yeast yellow yesterday yield young yourself youth zombie zucchini apply applied
    applying applies reset resetting passwords improving improved baking learned studying traveling travelling
    traveled cancelled canceled cancelling changing changed created creating deleting deleted removed removing
    added adding opened closed closing installing installed uninstall updating updated upgrading sending sent
    buying selling walking playing working worked finding finished finishing started starting stopped stopping
    explained explaining calculating converting converted translating recipes countries cities companies families
    stories movies babies parties batteries properties causes effects benefits examples differences advantages
    disadvantage disadvantages similarities strategies techniques exercises vitamins mountains rivers animals
    planets array integer boolean class framework algorithm algorithms recursion compiler debugging deployment
    container cluster servers databases backend frontend authentication authorization encryption certificates
    repository commit branch merge pipeline dependency dependencies configuration configure installation
    documentation tutorial javascript python spanish italian portuguese russian japanese korean arabic american
    british european african halloween thanksgiving pneumonia diarrhea asthma arthritis migraine cholesterol
    antibiotic antibiotics paracetamol vaccination allergies dehydration insomnia dishwasher detergent curtains
    mattress inheritance vegetarian vegan lasagna strawberries blueberries cinnamon uncomfortable cheapest fastest
    smallest highest longest tallest easiest healthiest";
/// Names that are common in questions but must not be taken for a misspelt word.
COMMON_NAMES = "
    india indian china chinese quora google facebook trump clinton obama modi delhi mumbai korea iran iraq syria
    russia james david peter martin marin harry henry maria marie smith clark allen steve brian jason justin robert
    robin samsung apple nokia oracle intel paris london berlin kenya niger nigeria gambia zambia austria australia
    georgia adele alien avast xanax zantac zocor celexa lyrica lexapro prozac zoloft adderall viagra cialis tylenol
    advil motrin aspirin insulin morphine codeine heroin cocaine ibuprofen warfarin metformin lipitor";
/// Real words and names that are one letter from a common word: never typing mistakes.
RARE = "
    abound abraid absolve absorb absorption acton adapt addend addice adenine adenosine adept adopt adsorb
    adsorption adust aerial affect aground allan allusion altar alter amide amine amino amission andersen anderson
    angel angle anility anion annals annul anomal anther assist assure ativan aural avenage avenue babies ballast
    ballet ballot bandana barometric baron bartery basket bazaar billet bister bizarre blast blunt bluntly board
    bonny bored boron bounce bounty bowser brach breadth breath breathe bridal bridle brisker brisket bromide
    bromine browne browse browser brunch brunt brute bubble budger bulger bullet bulletin bunter burgher burnt
    burton bushiness butane butene butler butte butteris caliculate callous callus calvary calyculate canva canvas
    canvass capital capitol carat carcel caret carious carnal carnival carnivore caroline carolyn carotene carrot
    casher cashier casino casket casual catherine cation causal caution cavalry celery censor censure centaury
    cerate cereal cerebrate certain cession champaign chancel chapiter chare chatter chemise chemist chimes
    chlorate chloride chlorine chlorite choking chord cite clarity clarke classis clavicle clavier clinic clojure
    clown coarse colic collet cologne colon colonel colony comic community commutation complement complexus
    compliant complier compliment comportable compter computation conceit concent concept concern concert confect
    confider confitent conflict confract conic conject conscience conscious consent conserve consist consort
    constat constitute consul contact content context continual continuous contract contrast contuse contusion
    convect convent converse convert convict copple corcle cord cornea corneal coronal correption corse council
    counsel counter country county course courtesy crasis crate creatine creatinine creese cremate crenate
    crenature crested cresting crestor crete crony crown currant current curtain curtsy cynic cytokine cytosine
    dagger dairy dangler decence decent decree deduce defuse degrease deicide deign delinition delirious delivery
    delphi delver dental deplete deprecate deprecation depreciate depreciation depredation deprivation derision
    derivation descent desert desist dessert device devise diary diffuse digitalis dilection direption discreet
    discrete discursion discus disert disinterested dissent dissert dissolve divorcee doable doublets dram drawling
    drier drown dunner eagre eduction eery effect eger election electron elicit elusion emigrate eminent emission
    enmure ensure entourage enure envelop envelope erection erigible estivate etamine ethane ethene ether evet
    exalt examinee except exercise exigible exorcise expanse expansive expect expedience expediment experient
    exsect exsert extense extersion exult fallow farther father fautor favosite favosites favour feather feeze
    fehling femeral fervour fictor fidge fiend figma finfish finger finial fiverr fixure flaunt flench flidge
    flinger flout fluoride fluorine focal fodder foreword form formally formerly fort forte forth forty forward
    fother foulder fourth fraight frieze frit from frons froward frower frown fumous further gaelic gage galage
    gallic gamble gambol gasket gavage general generic generics genes genesis genetics genius gentile genus
    geometric geriatric germain gest gilden ginger glycine gorilla gowden gradate gravel gret groats grovel
    guerrilla gulden gust habitus hanger hansen hanson hardass hart heath hemmer hermitage hight hinge hoard hoarse
    holyday horde hore hose hostel hotel housling hovel humeral humility humira hummer humoral humour hunger
    hyperglycemia hypertension hyperthermia hypoglycemia hypotension hypothermia ileum ilium illicit illusion
    immanent immigrate imminent immunity impassible impunity incend incide incite indent indite induce indurance
    infatuation infect infection infestation inflection inflict ingenious ingenuous inject injection injury insect
    insight insist inspect inspection instillation institute insure intent interim interment internment interstate
    intramural intrastate invect invection iodide iodine johnson johnston jury katharine katherine keratin kernel
    koran kotlin lactase lactose ladies lantus larder lauder lave layner leal legend legion leon lesion lesson
    lester lever lier lightening lightning linger liver livery livre loath loathe loaves local locale locution
    looming loose lose loyal luxuriant luxurious lyft lysine malleolus mallet malleus maltase maltose mange manger
    mangle manifest manifold manner manor mantel mantle manul marina marine mariner marion marital marlin marlon
    marshal marten martial martian martin material maternal mature meaking meatus medal meddle mediaeval mediaevals
    medial mediation medication meditation medius menage menaion mental menthol mere merino merlin messuage metal
    methane methanol mettle michele michelle miliary militate miner mingle minimus minium minor minos minster
    minuet mirror mistery mitigate model moderna module moile moither moodle moor moral morale morling morsel
    mortal mortar mortgagee moth motile mourning mousie mousse mucous mucus muddle mullion mural musci muscle
    muscule muse mussel mutter nasion nation natural nature naval navel needle nephron nere nervus neural neuron
    neutron neve nexium nitrate nitrite njorth nodule noel noie noodle notional novel nowise oceanus officinal
    omission onerate oneration onion oral ordinance ordnance pailful palate palette pallet pamper parameter parison
    parson pastern pastis pate patent paternal patience patient patter pattern pauper peasant pedal peeper penury
    perfect perimeter perineal perjury peroneal perpetrate perpetuate perquisite perscribe persecute persist
    personal personify personnel persons perspective pervious petal petersen peterson pfizer pharmacy pheasant
    phonograph phosphorous phosphorus piazza picket pint piracy pistil pistol piston plaice plaint plaintiff
    plaintive planetary plavix plenary pleural plower plural plyer podder polder ponder poplar popper populace
    populous pore porite porites porket portent postgres potent pottern potto pour powter practice practise precede
    precedent prefect premiere premious prerequisite prescribe president pretence prie pried primacy primary
    primate principal principle prion prism prison privacy privation proceed processional prod productus profection
    profit program programme projet promisee propane propene prophecy prophesy prophet proscribe proscription
    prosecute prospective prosper prostate prostrate provect provection provent provine prowess pubic public purine
    purse quarto quicken quiet quietus quite quota quoted rabbi rabbit rabble rabies rapped rapt rase rasher ration
    recital recover rectal recuse redact redaction reddit reduce reeding refaction refect refutation regality
    regally regelation regent region reign reiver releasee relent relic relict religion relume remord renard rental
    renverse repent reptation requitement reserve resist resolve respectfully respectively retard retent retort
    retund retuse revel revenue reverence reverie revers reverse review revolve revue rhythmus roster rote rother
    rotund roue rouet rout route routhe royal rubble rubies rural sable saciety sadden sage salary salivation
    sallow salty salvation salver sanatory sanitary sarong sart saviour savory savour scabies scalary scrit
    sculptor sculpture scummer seam seared secession seduce seep seet selection senor sensor sentience serial
    serine serjeant serrous session shallow shete shewer shied shingle shingles shovel shrift shrike shtick sice
    sift sifter signer silene silicon silicone simile simmer simulate singe singer single sinter sinuation sipple
    site sitter skelter skimming skrike slavery sleight slinger sliver smelter smight smoulder smyth snider snuffer
    snuffers sodden soke solidary solitary sopping sower spacial spader spae specie species sped spelding spelter
    sperling spight spilt spirt splent splint sport sprig spring sprint sprit sprong spurt stacte stal stale starch
    starvation static statin station stationary stationery statist statistic statue stature statute steal steel
    stela stele stephen stephens steven stevens stike stimulate stoic stolid stooping storge stowage stowre
    straggle straight strait strangle strangler strangles stratagem strategy stratus streel strick stricture
    strikle studious sturdy sturgeon stye suable subnect succession suction sulfate sulfite sulphate sulphite
    sultry summit surreal swatch swelling swelter swich swingle syle tacket tain tangue taslet tassel team teat
    teem tenant tenent tenet tentacle testicle than then thereat thiamine thicket thompson thomson thorough though
    thought thowel thrid through throughout thymine thyroxine ting tink tirade tittle toat tody topography tortuous
    torturous totalis towser trail trais travel treacher tread trebuchet trello tret trial tringle trough trow
    trowel trunnel truss tuck tucket turbid turgid turnkey tussle twight typography unce unciform unclue
    unexceptionable unexceptional urban urbane urine usable vacuation vale valet valium varicous vassal velvet
    venal venial venous ventricle venues venus veracity versicle vesicle vessel vial victual victuals vile vimeo
    violet vison vocal volley voracity vortical wadding wafter wailful waist waive wallet waning warling wasite
    waste wave weather weel wether whenas whether whither widow wight willet windrow wist wite witeless witful
    wither witless woden wold wore wort wost wreak wreck wrie wright writhe wroth yest";
}

/// Pairs of a common misspelling and the right word.
pub const MISSPELLINGS: &str = "
    recieve receive recieved received reciept receipt definately definitely definatly definitely defiantely
    definitely seperate separate seperately separately grammer grammar calender calendar tommorow tomorrow
    tommorrow tomorrow tomorow tomorrow accomodate accommodate accomodation accommodation occured occurred
    occurence occurrence beleive believe belive believe wierd weird freind friend freinds friends goverment
    government enviroment environment adress address begining beginning buisness business busines business collegue
    colleague comittee committee commitee committee completly completely concious conscious embarass embarrass
    existance existence experiance experience foriegn foreign fourty forty futher further garantee guarantee
    gaurantee guarantee happend happened harrass harass immediatly immediately independant independent intresting
    interesting knowlege knowledge liason liaison libary library lisence license maintainance maintenance managment
    management medcine medicine millenium millennium mispell misspell neccessary necessary necesary necessary
    nieghbor neighbor noticable noticeable occassion occasion oppurtunity opportunity oportunity opportunity
    orignal original peice piece persistant persistent posession possession possesion possession prefered preferred
    privelege privilege probaly probably pronounciation pronunciation publically publicly questionaire
    questionnaire recomend recommend reccomend recommend recommed recommend refered referred relevent relevant
    religous religious remeber remember repitition repetition resturant restaurant restaraunt restaurant rythm
    rhythm secretery secretary sieze seize similiar similar sincerly sincerely speach speech strenght strength
    succesful successful successfull successful suprise surprise temperture temperature temperary temporary thier
    their truely truly unforseen unforeseen untill until vaccum vacuum vegatable vegetable vehical vehicle visable
    visible wednsday wednesday writting writing yeild yield becuase because beautifull beautiful diffrent different
    langauge language lenght length paswword password passowrd password pasword password programing programming
    promblem problem quesiton question shoud should sentance sentence tecnology technology thougth thought
    transfered transferred usefull useful wonderfull wonderful abscence absence acheive achieve accross across
    agressive aggressive apparantly apparently arguement argument basicly basically carribean caribbean cemetary
    cemetery chauffer chauffeur concensus consensus dependance dependence dilemna dilemma dissapoint disappoint
    ecstacy ecstasy flourescent fluorescent gratefull grateful heirarchy hierarchy humourous humorous hygeine
    hygiene ignorence ignorance indispensible indispensable innoculate inoculate intelligance intelligence
    mischevious mischievous perserverance perseverance playwrite playwright portugese portuguese potatos potatoes
    tomatos tomatoes preceed precede resistence resistance rediculous ridiculous sargent sergeant siezure seizure
    supercede supersede tendancy tendency threshhold threshold tyrany tyranny wilfull wilful instal install guage
    gauge jewelery jewelry exersise exercise excercise exercise exercize exercise sucess success pharoah pharaoh
    tounge tongue welcom welcome algoritm algorithm algorthm algorithm databse database javascirpt javascript
    pyhton python calculater calculator computor computer docter doctor editer editor diffrence difference
    availible available availabe available avaliable available";
