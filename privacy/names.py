"""Words for recognising names and for making fictitious ones, English and Chinese. Data only."""

from __future__ import annotations

from typing import Final


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


# Given names: the most common ones, to recognise "Given Surname" where the model is unsure.
FEMALE: Final = frozenset(
    _split(
        """
    abigail agnes aisha alexandra alice alicia allison amanda amber amelia amy ana andrea
    angela anita ann anna anne annette april ashley audrey barbara beatrice bernadette beth
    betty beverly brenda bridget brittany camila carla carmen carol caroline carolyn catherine
    charlotte cheryl chloe christina christine cindy claire clara claudia colleen connie
    courtney crystal cynthia daisy dana danielle dawn deborah debra denise diana diane dolores
    donna doris dorothy edith eileen elaine eleanor elena elizabeth ella ellen emily emma
    erica erin esther ethel eva evelyn fatima fiona florence frances gabriela gina gladys
    gloria grace hannah harriet hazel heather heidi helen ida ingrid irene iris isabel
    isabella jacqueline jane janet janice jasmine jean jennifer jessica jill joan joanna
    josephine joyce judith judy julia julie karen katherine kathleen kathryn katie kayla kelly
    kim kimberly kristen laura lauren leah lena leslie lillian linda lisa lois lori louise
    lucia lucy lydia madison margaret maria marie marilyn marjorie martha mary maureen megan
    melanie melissa mia michelle mildred miriam molly monica nadia nancy naomi natalie nicole
    nina nora norma olivia pamela patricia paula pauline peggy phyllis priya rachel rebecca
    regina renee rita robin rosa rose rosemary ruth sabrina sally samantha sandra sara sarah
    shannon sharon sheila shirley sofia sophia sophie stacy stella stephanie sue susan suzanne
    sylvia tamara tanya teresa theresa tiffany tina tracy valerie vanessa vera veronica
    victoria viola violet virginia vivian wanda wendy yolanda yvonne zoe
        """
    )
)
MALE: Final = frozenset(
    _split(
        """
    aaron adam ahmed alan albert alejandro alex alexander alfred ali allen andre andrew
    anthony antonio arthur barry benjamin bernard bill billy bob bobby bradley brandon brian
    bruce bryan calvin carl carlos cesar chad charles chris christian christopher clarence
    claude clifford colin craig curtis dale daniel darren david dean dennis derek diego dmitri
    donald douglas dustin dwight earl eddie edgar eduardo edward edwin eli elijah elliot eric
    ernest ethan eugene evan felix fernando floyd francis francisco frank fred frederick
    gabriel gary gavin george gerald gilbert glenn gordon graham gregory harold harry harvey
    hassan hector henry herbert herman howard hugh hugo ian isaac ivan jack jacob jaime jake
    james jamal jared jason javier jeff jeffery jeffrey jeremy jerome jerry jesse jesus jim
    jimmy joe joel john johnny jon jonathan jordan jorge jose joseph joshua juan julian justin
    karl keith kenneth kevin kurt kyle larry lawrence leo leon leonard leroy lewis liam lloyd
    logan louis lucas luis luke manuel marco marcus mario marvin mark martin mason matthew
    maurice max melvin michael miguel mike milton mohamed mohammed nathan nathaniel neil
    nicholas nick noah norman oliver omar oscar owen patrick paul pedro peter philip phillip
    rafael ralph ramon randall randy raul raymond ricardo richard rick robert roberto rodney
    roger roland ronald ross roy russell ryan samuel scott sean sebastian sergio seth shane
    shawn sidney simon stanley stephen steve steven stuart ted terry theodore thomas tim
    timothy todd tom tommy tony travis trevor tyler vernon victor vincent wade wallace walter
    warren wayne wesley william willie xavier zachary
        """
    )
)

# Surnames that are words as well, or so common that they stand alone.
COMMON_SURNAMES: Final = frozenset(
    _split(
        """
    adams alexander allen anderson armstrong arnold bailey baker barnes bell bennett berry bishop
    black bradley brooks brown burke burns butler byrd campbell carpenter carter chambers chapman
    clark clarke cole coleman collins cook cooper cox cruz cunningham davis day diaz dixon duncan
    edwards elliott ellis evans ferguson fisher fleming fletcher flores ford foster fowler fox
    franklin freeman fuller garcia gardner garrett gibson gomez gonzalez gordon graham grant gray
    green greene griffin gutierrez hall hamilton hansen hanson harper harris harrison hart harvey
    hawkins hayes henderson hernandez hicks hill holland holmes hopkins howard howell hudson hughes
    hunt hunter jackson jacobs jenkins jensen jimenez johnson johnston jones keller kelley kelly
    kennedy kim king knight lane larson lawrence lawson lee lewis little long lopez lynch marshall
    martin martinez mason matthews may mccarthy mccoy mcdonald mendoza meyer miller mills mitchell
    montgomery moore morales moreno morgan morris morrison murphy murray myers nelson newman nguyen
    nichols obrien oliver olson ortiz owens palmer parker parks patel patterson payne perez perkins
    perry peters peterson phillips pierce porter powell price ramirez ramos reed reid reyes reynolds
    rice richards richardson riley rivera roberts robertson robinson rodriguez rogers rose ross ruiz
    russell ryan sanchez sanders schmidt schneider schultz scott shaw silva simmons simpson sims
    singh smith snyder spencer stephens stevens stewart stone sullivan taylor thomas thompson torres
    tucker turner vargas vasquez wagner walker wallace walsh ward warren washington watkins watson
    weaver webb weber welch wells west wheeler white williams williamson willis wilson wood woods
    wright young
        """
    )
)
COMPANY_WORDS: Final = frozenset(
    _split(
        """
    inc ltd llc llp plc corp co gmbh ag sa nv bv group holdings partners associates company
    corporation bank capital technologies systems solutions services consulting analytics media
    labs software networks university college institute foundation trust insurance markets
        """
    )
)

# Fictitious people are made of these: short, and rare as names of real people.
NEW_FEMALE: Final = _split(
    """
    Abra Adela Alda Alva Anwen Ariela Asta Avis Bela Blythe Brisa Calla Cara Celia Ciara Cora
    Dalia Delia Dora Effie Elda Elspeth Enid Etta Fay Flora Freya Gwen Hedda Hester Ilse
    Imogen Ines Isla Jora Juno Kaia Lana Leda Lotte Luna Lyra Maeve Mara Merle Mina Nell Nola
    Oda Oona Petra Phoebe Ramona Rhea Romy Runa Selma Signe Tamsin Thea Tilda Una Vesna Willa
    Adair Aerin Alina Amabel Anthea Arden Astrid Aurelia Averil Bettina Briony Calista Carys Cerys
    Clio Cosima Damaris Davina Delphine Drusilla Edda Eluned Emmeline Faye Fenella Galina Ginevra
    Greer Hadley Honor Idony Iona Isolde Jessamy Jocasta Kerensa Lavinia Leonie Linnea Lorna Lucinda
    Maren Marsali Melisande Minna Morwenna Nerys Odette Ottilie Perdita Petronel Primrose Rosalind
    Rowena Sabine Seren Sidony Sunniva Sybil Tabitha Thalia Tirzah Ursula Verity Winifred Xanthe Zelda
    """
)
NEW_MALE: Final = _split(
    """
    Abel Aldo Alvin Amos Ansel Arlo Arno Axel Basil Boris Bram Cyrus Dario Denzel Dirk Edvin
    Egon Emil Enzo Ewan Fabian Finn Gideon Gustav Hale Hamish Heath Ira Ivo Jarek Jasper Joss
    Kai Kaspar Kester Lars Lennox Linus Lorcan Magnus Milo Nils Odin Olaf Orson Otis Otto
    Percy Piers Quentin Rafe Remy Rolf Rufus Silas Soren Stellan Sven Tavis Torin Ulric Viggo
    Wilbur Yorick
    Adlai Alaric Alban Algernon Alistair Ambrose Anders Angus Anselm Archer Aubrey Auberon Balthasar
    Barnaby Bastian Bertram Blaise Caspian Cedric Clement Conan Cormac Crispin Cuthbert Cyril Dashiel
    Digby Dorian Duncan Edmund Egbert Elmer Emrys Ephraim Erasmus Fergus Florian Godfrey Griffin Gunnar
    Hadrian Hector Horace Humphrey Ignatius Ingram Jarvis Jonas Jotham Kenelm Lambert Laszlo Leander
    Lionel Ludovic Lysander Malachi Marius Merlin Mungo Neville Noel Osbert Oswin Peregrine Phineas
    Ragnar Roland Rupert Sebald Sigurd Tancred Thaddeus Tobias Tristan Ulysses Valentin Wilfred Zeno
    """
)
NEW_SURNAMES: Final = tuple(
    head + tail
    for head in _split(
        """
        Alder Amber Ash Barrow Beck Birch Black Bram Brier Bright Brook Calder Card Char Clay Cold
        Copper Cran Crest Dal Darrow Dever Dun East Edge Elm Fair Farrow Fern Fox Garrow Glen Grey
        Had Hale Har Hart Hawk Hazel Heath Hollis Iron Kestrel Kings Lake Lang Lark Lin Lock Marl
        Mar Mer Mill Moor Nether North Oak Old Pen Pine Quill Raven Red Ridge Rook Rowan Sedge Sel
        Silver South Stone Sum Tam Thistle Thorn Under Vale Wain West Wether Whit Wick Wild Wren
        """
    )
    for tail in _split(
        """
        bourne bridge brook bury by combe cote croft dale dean den ditch fell field ford garth
        gate grove hall ham hearth heath holm hurst lea leigh low mere mond more moss nell rick
        ridge set shaw stead stoke stow thorpe thwaite ton vale wain ward wardine water way well
        wick wold wood worth
        """
    )
)
NEW_TOWNS: Final = _split(
    """
    Alderbrook Ambleford Ashmere Birchport Bramley Brindleton Cedarholm Clearwick Copperton
    Crowmarsh Dunhaven Eastmere Elmsford Fernbrook Foxhollow Glenhaven Greyharbor Hartsmoor
    Hollowford Ivybridge Kelmscott Larkhaven Linford Maplecross Merrowdale Mossgate
    Netherfield Oakmere Pinebarrow Quarrytown Ravensford Rosehaven Saltmarsh Stonehaven
    Thornwick Underlake Vinehall Westmere Willowbrook Wrenton
    """
)
NEW_STREETS: Final = tuple(
    f"{word} {way}"
    for word in ("Alder", "Bellwether", "Copperleaf", "Driftwood", "Elderflower", "Foxglove",
                 "Goldcrest", "Hawthorn", "Juniper", "Larkspur", "Moonstone", "Nightjar")
    for way in ("Street", "Lane", "Road", "Way")
)  # fmt: skip
NEW_HOUSES: Final = (
    "Northgate", "Lakeside Cross", "Silver Birch", "Harbor Light", "Greenfield", "Stonebridge",
    "Willow Park", "Eastmoor", "Redwood Hill", "Clearwater", "Highfield", "Maple Ridge",
    "Riverbend", "Sunrise Hill", "Westhaven", "Oak Crest",
)  # fmt: skip

# Chinese surnames, the most common single and double ones.
ZH_SURNAMES: Final = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡"
    "贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷"
    "钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦申尤毕聂丛焦向柳邢路"
    "岳齐沿梅莫庄辛管祝左涂谷祁时舒耿牟卜路詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍"
    "翁隋植甘景薄单包司柏宁柯阮桂闵解强柴华车冉房边辜吉饶刁瞿戚丘古米池滕晋苑邬臧畅宫来嵺苟全"
    "褚廉简娄盖符奚木穆党燕郎邸冀谈姬屠连郜晏栾郁商蒙计喻付代肖闫佟仝佘冼逄郗禤邝麦荆应仇裘缪宣杭诸钮嵇荀於芮"
    "羿储汲糜巫隗宓班仲伊厉戎束韶蓟印宿蒲邰鄂蔺胥莘贡劳扶宰雍璩濮扈郏浦尚慕茹习艾容慎暨匡寇阙沃蔚巩晁敖冷訾阚"
    "那鞠巢蒯竺权逯桓禹仉岑尧宗洛查"
)
ZH_DOUBLE_SURNAMES: Final = (
    "欧阳", "司马", "上官", "诸葛", "东方", "皇甫", "尉迟", "公孙", "慕容", "令狐", "司徒", "夏侯",
    "端木", "独孤", "南宫", "长孙", "宇文", "轩辕", "百里", "申屠", "澹台", "公冶", "宗政", "濮阳",
    "淳于", "单于", "太叔", "仲孙", "钟离", "鲜于", "闾丘", "呼延", "东郭", "赫连", "拓跋", "完颜",
)  # fmt: skip
# Characters that given names are made of.
ZH_GIVEN: Final = frozenset(
    "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂文辉玲云建国华志红梅春花玉海燕雪琴晶莹波"
    "宁浩然宇轩梓涵欣怡子博雨桐佳琪思远一鸣诗俊晓立新振芝婷倩颖健鹏飞龙凤珍淑贞惠雅彤萌晨曦阳"
    "光斌彬凯帅旭东南西北峰岩松柏林森淼江河湖泽天宝庆祥瑞福禄寿喜财富贵荣昌盛兴隆德仁义礼智信"
    "忠孝廉洁清正永恒久远长安康乐欢悦心爱慧聪颖巧妍嫣然瑶琳璐瑾瑜珊玥珂琬琰珠宏达广才学良善美"
    "好柔嘉宜君成功业勤奋毅坚钢铁栋梁卫民保根生发金银铜秋冬夏青蓝紫月星辰亮耀灿烂翔腾骏虎豹哲"
    "翰墨书画琦睿淳朴素心怀若蕾蓉莲荷菊竹萍莉茜薇芸芬香菲蓓苗树楠桦榕枫逸凡奕辰皓轩煜祺锦程洁"
    "露虹霖沛润泓涵漪源泉溪潇潮滨津进启承继绍嗣祖宗家齐治国邦帆帅健辰诺沐昕烨彦希岚筠崧珏骁弢赟翀翘若墨可语晗昱"
    "彤妮婉媛娇婵娴姝妤妙姗娅婕嫒瑛璇璟瑄玮珊玺琛琨瑭璋琮珩玘锋锐钧鑫锴铭钰镇铠锟锡坤培增堃埔基城均圣地奎威"
    "学伦伯仲叔季佑佐佩侠俐倪倚偲傲僖儒先克兆冠冬冰凌凝刚创力劲励劭勋匀千升卓南博厚原双友发变古召吉同向君吟含启"
    "周和品哲唯商啸喆嘉团园图固坚垚堂墨士壮声备夏多大天太夫央奇奥妍姣姿威娣婧媚孟季学安定宛宜实宣宪宵容寅密富"
    "寒察寿封将小少尔尚尧展山岐岗岳峥峻崇嵘巍川州巧希帼常幸广庄序庆康庭廷弘张弦彪征律微徽心忆志念思恒恩恺悟悠情"
    "惜惟意慈慕慷成戈战扬承抒拓振捷擎攀政敏敬文斐方施日早旦昀昂昆明易星春昭是显晏晓晖晔晗普景智暄暖暮曙曼朋朔望朝"
    "未本朱权李杏村束来杨杭松极果枝柏柳标根格桃桐桢梁梦棋森植椿楷榆樱檀欧正武殿毓民水永汉汐汝池汶沁沂沅河波泰洋洪洲"
    "流浚浦海润涛淑淇淞渊渝温湘滢漫澄澜濠火灵炎炳炫烁烈焕煊煜照熙熠燊爽牧特狄献珂珈珍珞班琦瑜瑞璧瓒甜生甫申男畅略"
    "白百皎盈益盛目直相真眉睿知石砚硕碧磊礼祁祎祖祯禄禧秀秋科秦稼穆立章童端笑笛笠竣策管箐米精紫絮红纪纯纲纳纶绍经"
    "绣维绮缘罡群羽翠翰翼老者耕联聪育胜能自至致舒航舟艺艾芊芙芝芮芷芹苇苑苓英茂茵荃荔荟莎菁萌萱葆葵蒙蓝蔓蔚蕙藏"
    "藜衡裕西见观言训记许谊谋谦谨贞贤贵赞赫起超越跃轶辛辛达迅迎近运远连迪迷逊通造道遥郁郎部郡酉采野量鉴锁长门闻阔阳陆"
    "降限院陶隽雁雄集雯雷霁霄霆霏青靖静非韦韬音韵顺颂领颀颜风飘飒首香馥馨驰骁骅骞高魁魏鲁鲲鸣鸥鸽鸿鹃鹤鹭麒麟黎默"
)
ZH_NEW_SURNAMES: Final = tuple(
    "闻裘谌巫封芮储麻巴弓牧隗宓蓬仰仲伊暴钭厉戎束池幸韶蒲邰蔺印宿从鄂索赤"
)
ZH_NEW_GIVEN: Final = tuple("澄岚屿棠霁筠舟禾砚朔岑汀槿杳芷笙珩煦翊湛霏予琅粲蘅楹旸骞绾昱苒蓁")
ZH_NEW_FEMALE: Final = tuple("嫣婉妍姝娅婵娴妗婳姣嫒媛瑶琬珺琇璎珞芷芙蕙茉薇菡蓉苓荔绮绫缦黛")
ZH_NEW_MALE: Final = tuple("骁骞骅峻崚嶙峥钊铮锴铠镇戬毅弘彪焱燊晟昊昶柏桓栋楷澔瀚渤浚擎翀")
# What in a given name says whose it is more often than not.
ZH_WOMEN: Final = frozenset(
    "娜芳秀英静丽艳娟霞玲桂燕莉婷雪琴晶倩颖珍淑贞惠雅彤萌芸芬香菲蓓苗萍茜莲荷菊蕾妍媛嫣娇姗姝娅婉婕怡欣梅兰红花"
    "美好柔巧瑶琳璐瑾瑜珊玥琪"
)
ZH_MEN: Final = frozenset(
    "伟强磊军洋勇杰涛刚辉建国华志浩宇轩博俊立健鹏飞龙斌彬凯帅旭东峰岩松柏林森江海宝庆福禄富贵荣昌盛隆德仁义礼信忠"
    "毅坚钢铁栋梁卫保根金虎豹骏翔腾超明"
)
ZH_NEW_STREETS: Final = (
    "云溪",
    "松涛",
    "青禾",
    "竹影",
    "银杏",
    "望月",
    "听泉",
    "落霞",
    "丹枫",
    "碧波",
)

MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
