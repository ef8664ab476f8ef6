"""Function words and the words reasonings lean on, for the seven Latin-script languages that are told apart by default.

A window of ordinary prose has a third to a half of its words here, and few in another language's list, so most windows need no
statistical detector; and a window too short for one ("Alors, on vérifie.") is still recognised. A word that two of the languages
share stands in both lists.
"""

_LISTS = {
    "en": """a about above after again all also although always am an and another any are as at back be because been before being below
        between both but by can cannot case could did do does done down each either else equal every find first follows for from get
        gives given had has have he hence her here his hmm how i if in into is it its just know last least left less let let's like made
        make many may me means might more most must my need next no not note now number of off okay on once one only or other our out
        over per right same see she should since so some still such sum take than that that's the their them then there therefore these
        they this those three through thus to total two under until up us use using wait was we well were what when where whether which
        while who why will with without would yes you your i'm i've i'll it's don't doesn't can't let's what's we'll we've there's
        they're we're isn't aren't didn't answer means check""",
    "fr": """a ai ainsi alors après au aucun aussi autre aux avait avant avec avoir beaucoup bien car ce cela celle celui ces cet cette
        chaque comme dans de depuis des deux deuxième doit donc du elle elles en encore ensuite entre est et être eux fait faut il ils
        je jusque la le les leur leurs lui mais même moins mon ne nombre non nous on ont où ou par parce pas peut plus pour pourquoi
        premier première puis puisque quand que quel quelle qui quoi résultat sa sans se selon ses si soit son sont sous sur ta tous
        tout toute toutes très trois trouve un une vers voici vous l'on c'est d'abord d'où s'il qu'il n'est réponse""",
    "de": """aber alle allem allen aller alles als also am an andere auch auf aus bei beide bis da daher damit danach dann das dass daß
        dem den denn der des deshalb dessen die dies diese diesem diesen dieser dieses doch drei durch ein eine einem einen einer eines
        er erste es etwas folgt für gegeben gibt gleich gut haben hat hier ich ihr ihre im immer in ins ist ja jede jeder jedes jetzt
        kann kein keine können man mehr mit müssen muss nach nicht noch nun nur ob oder ohne schon sehr sein seine sich sie sind so
        somit soll sowie über um und uns unter viel vom von vor war was weil weiter wenn wer werden wie wieder wir wird wo zahl zu
        zuerst zum zur zusammen zwei zwischen antwort lösung""",
    "es": """a al algo antes aquí así aunque bien cada como con cual cuál cuando cuánto cuántos de debe del desde después donde dos el
        él ella ellos en entonces entre era es esa ese eso esta está estas este esto estos fue ha hace hacer hasta hay la las le les
        lo los luego más me menos mi mientras mismo muy nada ni no nos nosotros número o otra otro para pero podemos por porque primer
        primero puede pues que qué quién respuesta resultado se sea según ser si sí sin sobre solo son su suma sus también tanto
        tenemos tiene tiene todo todos total tres tu un una uno unos vamos y ya""",
    "it": """a abbiamo ad al alla allora altro anche ancora bene che chi ci cioè come con così cui da dal dalla degli dei del della delle
        dello deve di dobbiamo dopo dove due dunque e è ed era fa fino gli ha hanno i il in infatti insieme invece io la le lei lo loro
        lui ma me meno mi molto nei nel nella noi non nostro numero o ogni oppure ora per perché perciò più poi poiché possiamo prima
        primo può quale quando quanto quanti quello questa questo quindi risposta risultato se sei senza si sia sono stato su sua sul
        sulla suo tra tre tutti tutto un una uno verifichiamo""",
    "pt": """a à agora ainda além algum antes ao aos após aqui as às assim até bem cada com como da das de dela dele depois deve disso do
        dois dos duas e é ela ele eles em enquanto então entre era essa esse esta está este eu foi há isso isto já lhe logo mais mas me
        mesmo meu muito na nas nem no nos nós não número o onde os ou outra outro para pela pelo podemos pode por porque portanto
        primeiro qual quando quantos que quem resposta resultado se seja sem ser seu sim sobre são só sua também te tem temos toda todos
        tudo três um uma vamos você""",
    "nl": """aan al alle alleen als andere antwoord bij daarna daarom dan dat de deze die dit doen door drie dus een eerst eerste elk elke
        en er geen gelijk gevonden haar had hebben heeft hem het hij hoe hoeveel hun ik in is ja je kan kunnen laten maar meer men met
        mijn moet na naar niet niets nog nu of om omdat onder ons ook op over samen te tegen tot twee uit van vanaf veel voor vraag
        waar want waren was wat we weer wel werd wie wij worden wordt zal ze zich zijn zo zoals zonder zou""",
}
FUNCTION_WORDS: dict[str, tuple[str, ...]] = {}
"""Word in lower case -> the languages whose list it is in."""
for _language, _words in _LISTS.items():
    for _word in _words.split():
        FUNCTION_WORDS[_word] = (*FUNCTION_WORDS.get(_word, ()), _language)
