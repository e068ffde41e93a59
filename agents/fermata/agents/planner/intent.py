"""What a clause is: a request, a question, or words that only mention an action.

Chosen: a positive list. A clause asks for an action only if it has the form of a request (imperative, polite frame,
stated need, verbless order); whatever else names an action (forbids, reports, wonders, supposes, quotes) is not one.
Refused: deciding by similarity, to which "we should never drain node-3" is the best of requests.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Final

from fermata.agents.planner.clauses import Clause
from fermata.agents.planner.text import known_verbs, lemma, mask_quotes, tokenize
from fermata.agents.planner.words import IRREGULAR, NUMBER_WORDS


class Intent(Enum):
    """What a clause does."""

    REQUEST = "request"  # asks for something to be done
    NEED = "need"  # names a thing that is wanted: "we need twelve copies", "some music would be nice"
    FRAGMENT = "fragment"  # verbless: "bedroom to 18", "and on line 4?"
    QUESTION = "question"  # asks for a fact
    HYPOTHETICAL = "hypothetical"  # wonders about an action
    CAPABILITY = "capability"  # asks what can be done or how
    PROHIBITION = "prohibition"  # forbids, or says that something stays as it is
    REPORT = "report"  # tells what has been or will be done
    STATEMENT = "statement"  # tells how things are
    DELEGATION = "delegation"  # "deal with it", "follow the runbook"
    CONSENT = "consent"  # "yes", "go on"
    REFUSAL = "refusal"  # "no", "never mind"


@dataclass(frozen=True, slots=True)
class Reading:
    """A clause with its intent; `body` is what is asked, without polite frames; `excluded` what must not be touched."""

    clause: Clause
    intent: Intent
    body: str
    excluded: str = ""


_LOOKING: Final = re.compile(
    r"^(?:only|just|i(?:'m| am) (?:only|just)) (?:look(?:ing)?|check(?:ing)?|ask(?:ing)?|curious|wondering)\W*$",
    re.IGNORECASE,
)
_FILLER: Final = re.compile(
    r"^(?:(?:ok(?:ay)?|hm+|hmm|uh|um|oh|ah|well|right|alright|all right|so|now|then|and|also|please|pls|plz|hey|hi|hello|yes|yeah|yep|sure|great|good|thanks|thank you|perfect|fine|"
    r"good morning|morning|sorry|actually|first(?:ly| of all)?|second(?:ly)?|third(?:ly)?|next|finally|lastly|after that|afterwards|but|just|kindly|quickly|again|team|folks|guys|assistant|fermata|maybe now|no worries|mate|buddy|pal|ugh|cheers|thx|ta|urgent)\b(?!-\w)[\s,:!.-]*)+",
    re.IGNORECASE,
)
_POLITE: Final = re.compile(
    r"^(?:(?:can|could|would|will|might) (?:you|we|one|somebody|someone)(?: (?:please|maybe|perhaps|kindly|just|quickly|possibly|go ahead and|also|then|first|now|next|again|already))*"
    r"|would you (?:mind|be so kind as to|be able to)|(?:do|would) you mind|mind|could (?:i|we) (?:please )?(?:ask|get|trouble) you to|(?:can|could|may|might) (?:i|we) (?:please )?(?:have|get|see)(?= )"
    r"|i(?:'d| would)? (?:really )?(?:like|love|want|need|appreciate it if|be grateful if|prefer)(?: (?:it if )?you)?(?: (?:to|could|would|can))?(?= )"
    r"|(?:we|you)(?:'d| would)? (?:really )?(?:like|want|need|have|ought|must|got|gotta|will need|are to|better|had better)(?: you)?(?: to)?(?= )|you should|you can(?: now)?|you may(?: now)?|we(?:'d| had) better"
    r"|let's|let us|go ahead and|go and|make sure (?:to|that you|you)|be sure to|see to it that|please|be so kind as to|do me a favou?r and|any chance (?:that )?you (?:could|can)|any chance of|"
    r"it(?:'s| is)? (?:about )?time to|time to|i(?:'m| am) asking you to|how about(?: you)?|what about|is it possible (?:for you )?to|would it be possible (?:for you )?to|feel free to|try to|"
    r"i(?:'d| would) be (?:\w+ )?(?:glad|happy|grateful|thankful|obliged) if you (?:could|would)?|it would be (?:great|nice|good|lovely|helpful) if you (?:could|would)?|i was hoping you (?:could|would)|(?:hoping|hope) you can|"
    r"your (?:job|task) (?:now )?is to|next step is to|remember to|don't forget to|do not forget to|help me(?: to)?|i need (?:you )?to|i want (?:you )?to)\b[\s,]*",
    re.IGNORECASE,
)  # fmt: skip
_PROHIBITION: Final = re.compile(
    r"(?:^|\b(?:please|but|and|that you|to|you|we|they|i|it)\s+)(?:do not|don't|dont|don’t|never|avoid|refrain from)\b(?! forget| hesitate| mind)"
    r"|^(?:not (?!more|less|over|under|above|below|until|before)|no(?: more| further)? (?=\w+(?:s|ing|ion|ments?)\b)|no (?:\w+ ){1,3}(?:today|tonight|tomorrow|now|yet|please|this|until|for|on|at|in|before|while)\b|(?:skip|forget(?: about)?|never mind|spare (?:me|us)) the\b|without \w+ing\b|(?:let's|let us) not\b|(?:don't|do not) even\b|i'd rather (?:you|we) (?:didn't|left|kept|let)\b)|\b(?:make sure|ensure|see to it|take care)(?: that)? .*\b(?:nobody|nothing|no one|not|never|\w+n't)\b|\b(?:under|in|on) no (?:circumstances?|case|account|condition)\b|\bby no means\b|\bat no (?:time|point)\b"
    r"|\b(?:should|must|may|can|shall|ought|need|would|could|will|might|is|are|be)(?: not|n't|n’t| never)\b|\b(?:cannot|can't|won't|shan't|shouldn't|mustn't|needn't|isn't to|aren't to)\b"
    r"|\bmust never\b|\b(?:touch|change|do|move|start|stop|alter|modify|write|send) nothing\b|\b(?:nobody|no one|no-one|none of (?:you|us)|nothing)\b.{0,30}\b(?:is to|are to|may|should|must|shall|gets? to|touch\w*|needs? to)\b"
    r"|\b(?:no need|isn't any need|unnecessary|forbidden|prohibited|not allowed|not permitted|off[- ]limits|out of the question|hands off|no longer|stop short of|steer clear|stay away|keep away|keep your hands)\b"
    r"|^(?:leave|keep) .*\b(?:alone|as (?:it|they|is|are)|at|on|off|untouched|running|open|closed|where|how|out|in|there|be|intact|unchanged|the way|stopped|locked|going|until|for now|like|\w+ing)\b"
    r"|\b(?:hold off|hold your horses|wait with|wait before|not yet|rather not|prefer not|would hate|wouldn't|let's not|let us not|no sense in|against)\b"
    r"|\b(?:must|has to|have to|should|needs? to|shall|is to|are to|will|better) (?:stay|remain|keep|be left|be kept)\b|\b(?:stays?|remains?) (?:as|where|on|off|open|closed|locked|at|up|down|in|put|there|running)\b"
    r"|\b(?:it|that) (?:would|could|might) be (?:wrong|bad|dangerous|a mistake|foolish|silly|a bad idea|risky)\b|\b(?:bad|terrible|awful) idea\b|^no \w+ing\b|\bmay wait\b|\bcan wait\b|\bis to be \w+ (?:only|by)\b|^only .* (?:may|can|should|must)\b",
    re.IGNORECASE,
)  # fmt: skip
_HYPOTHETICAL: Final = re.compile(
    r"\bwhat (?:if|happens|would|will happen|could happen|might)\b|\bwhat'd happen\b|\b(?:suppose|supposing|imagine|assuming|hypothetically|in theory|theoretically|say we|let's say|let us say|pretend)\b"
    r"|^(?:would|might|could|will|does|do|did) (?!you\b|we have\b|one of you\b|someone\b|somebody\b).*\b(?:hurt|break|help|harm|cause|work|matter|affect|make sense|be (?:safe|ok|okay|wise|better|possible|enough|bad|wrong|dangerous|a problem|worth|faster|cheaper|a good|an? \w+ idea)|mean|have been|solve|fix|lead|result|disturb|damage|cost|happen|change)\b"
    r"|^(?:would|could|might|should|shall|may|must|ought|can|am|are|were|had|do(?= (?:i|we|they|you)\b)) (?:i|we|they|he|she|it|the|that|this|anyone|anybody|somebody else)\b(?! (?:please|get|have (?:a|the|some)|see)\b)"
    r"|\bis it (?:safe|ok|okay|possible|wise|a good idea|allowed|necessary|worth|time|better|fine|advisable|bad|dangerous|reasonable|enough|permitted|risky|too late|smart|legal)\b"
    r"|\b(?:i|we) (?:wonder|was wondering|am wondering|were wondering|might|may|could have|should have|would have|'d have|wish|wished|are wondering)\b|\bi'm wondering\b|\bwondering (?:if|whether)\b|^wonder(?:ing)?\b|\bi wish\b|\bif only\b|\b(?:should|could|would|might|must)(?:n't)?(?:'ve| have)\b(?= (?:\w+ed|\w+en|been|done|gone|had|put|set|cut|shut|sent|made|run|held|told|left|kept|brought|bought|begun)\b)"
    r"|\b(?:thinking|thought|think) (?:of|about)\b|\b(?:considering|contemplating|debating|toying with|discussing|planning (?:to|on)|tempted)\b|\b(?:maybe|perhaps|possibly) (?:we|i|you|it|they)\b|^(?:maybe|perhaps)\b|\b(?:i|we) (?:don't|do not) know (?:if|whether)\b|\bnot sure (?:if|whether|about)\b|\bi doubt\b|\bwhether (?:we|i|to|or not|it)\b"
    r"|\bwhat(?:'s| is) the (?:effect|impact|point|risk|downside|consequence|harm|difference)\b|\bis there (?:a|any) (?:risk|danger|harm|point|reason|need)\b|\bwould (?:anyone|anybody|it|that|this)\b|\bin the (?:event|case) (?:of|that)\b|\bany (?:point|reason|risk|harm|objections?) (?:in|to|if)\b|\bwhy (?:not|don't we|would|should|did|do|does|was|were|is|can't)\b|\bhow (?:bad|risky|safe|dangerous) would\b|\bit might be\b|\bwould it\b",
    re.IGNORECASE,
)  # fmt: skip
_CAPABILITY: Final = re.compile(
    r"\bhow (?:do|does|can|could|should|would|to|might) (?:i|we|you|one|someone|people|a|the|it)?\b|^how to\b|\bwhat does \S+ (?:do|mean)\b|\bwhat (?:can|could) (?:you|i|we)\b|\bare you able\b|\bdo you (?:know how|support|have)\b|\bwhat (?:are you|do you) (?:able|do)\b|^can you \w+ [a-z]+s\s*$|\bwhich tools\b|\bwhat(?:'s| is) \w+_\w+\b|\bis there a way\b|\bwhat are the steps\b|\bwho (?:can|may|is allowed)\b",
    re.IGNORECASE,
)
_PAST: Final = re.compile(
    r"\b(?:yesterday|ago|last (?:night|week|month|year|monday|tuesday|wednesday|thursday|friday|saturday|sunday|shift|time|weekend|evening)|earlier(?: today)?|already|this morning|previously|before you|back then|just now|meanwhile|in the meantime|overnight|a moment ago|recently)\b",
    re.IGNORECASE,
)
_REPORT: Final = re.compile(
    r"^(?:fyi|for the record|just so you know|for your information|heads up|note that|by the way|btw|good news|done|update)\b(?!.*\bplease\b)"
    r"|\b(?:has|have|had|'s|'ve|'d|having) (?:already |just |since |now |been |not |never )*(?:been )?(?:\w+ed|\w+en|done|put|set|cut|shut|sent|made|built|begun|run|brought|bought|paid|held|told|gone|got|kept|left|lost|found|sold|read|hit|spun|stood|wound|swept|hung|fed|let|rolled|turned|taken)\b"
    r"|\b(?:was|were|got|been) (?:already |just |then |not |never )*(?:\w+ed|\w+en|done|put|set|cut|shut|sent|made|built|begun|run|brought|bought|paid|held|told|left|lost|found|sold|hit|swept|hung|fed)\b"
    r"|\b(?:i|we|he|she|they|[A-Z]\w+|someone|somebody)(?:'ll| will| am going to| is going to| are going to|'m going to|'re going to|'s going to)\b"
    r"|\b(?:i|we|he|she|they) (?:am|are|is|'m|'re) (?:about to|busy|currently|just)\b|\b(?:said|says|told me|told us|asked me|asked us|suggested|recommended|claims that|claimed|thinks|believes|mentioned|wrote that|writes that|insists?|insisted|wants me to|wants us to|ordered me|advised)\b",
    re.IGNORECASE,
)  # fmt: skip
_WH: Final = re.compile(
    r"^(?:(?:for|since|until|from|to|by|at|in|on|with|of|up to) (?=how|what|which|when|whom|whose))?(?:what(?:'s|s)?|how(?:'s|s)?|which|who(?:'s)?|whose|when(?:'s)?|where(?:'s)?|why|is|are|was|were|does|do|did|has|have|any|anything|anyone|anybody|isn't|aren't|am|will|what about)\b",
    re.IGNORECASE,
)
_NEED: Final = re.compile(
    r"^(?:i|we|you|he|she|they)(?:'d| would| will|'ll)? (?:really |also |just |only |still |now )*(?:need|want|like|love|could use|could do with|must have|have to have|prefer|require|are after|'re after|'m after|am after|fancy)\b(?! to\b| you\b)"
    r"|\b(?:from now on|effective immediately|as of (?:now|today|tomorrow|next \w+))\b"
    r"|\b(?:should|must|needs? to|has to|have to|is to|are to) be (?:at|set|brought|raised|lowered|turned|switched|changed|moved|put) (?:to |at |on |off |up |down )?"
    r"|\bwould be (?:lovely|great|nice|good|perfect|wonderful|fine|appreciated|helpful|ideal|enough|best)\b|\b(?:is|are) (?:enough|sufficient|plenty|fine|needed|wanted|required) (?:for|by|on|in)\b|\bwill do (?:for|as)\b|\b(?:is|are) enough for\b",
    re.IGNORECASE,
)
_NEEDS_DOING: Final = re.compile(
    r"\b(?P<modal>needs?|has|have|must|had better|wants?|is due|requires?|ought)\b (?P<to>to be |be |to have |a |an |some |to |for )?(?P<rest>\w+.*)$",
    re.IGNORECASE,
)
_ARRANGED: Final = re.compile(
    r"^(?!(?:i|we)\b).{2,60}?\b(?:should|can|may|gets|goes|is to|are to|to get|to have|could use)\b (?!not\b|never\b|be (?:seen|found|reached|heard|a|the|in|on)\b)\w+",
    re.IGNORECASE,
)
_DELEGATION: Final = re.compile(
    r"\b(?:take care of|do something about|deal with|see to(?! it that)|look after|attend to) \w+|\b(?:deal with|take care of|sort (?:it|this|that|things)? ?out|handle|fix|see to|look after|attend to|do something about|work through|act on|resolve) (?:it|this|that|them|these|things|the (?:problem|issue|situation|matter|incident|case|fault|alarm))\b"
    r"|\b(?:follow|run|use|execute|do|apply|go through|go by|go with|work through|work down|start|begin|trigger|launch|initiate|kick off|complete|tick off|carry out|act (?:on|by|according to|upon)|proceed (?:with|by|according to)|observe|respect|keep to|perform|stick to|go by|according to|as per|per|as) (?:the |its |our |that |this |your )?(?:\w+[ -]){0,4}(?:runbooks?|procedures?|playbooks?|checklists?|routines?|sops?|steps|instructions|rules|protocols?|guide|guidelines|manual|drills?|measures|sequence|handbook|list|plan|book|article|page|script|recipe)\b"
    r"|^(?:(?:so|then|now|and|time for|this is|case for) )?(?:the |our )?(?:\w+[ -]){0,3}(?:runbook|procedure|playbook|checklist|routine|protocol|drill|handbook|emergency plan|plan)(?: steps)?(?:,? please| for [\w -]+)?\W*$"
    r"|\bwhat the (?:runbook|procedure|playbook|checklist|protocol|manual) says\b|\bthere(?:'s| is) a (?:runbook|procedure|playbook|checklist|routine|protocol)\b|\bas (?:the )?(?:runbook|procedure|playbook|checklist|routine|protocol)s? (?:says?|describes?|tells?|demands?|wants?)\b|\b(?:as|like|what(?:'s| is)) (?:it is |it's |they are )?(?:described|written|documented|laid down|prescribed|usual|set out)\b|\b(?:the usual|standard) (?:drill|routine|procedure|steps)\b|\byou know what to do\b|\bby the book\b|\bdo what(?:'s| is) (?:needed|necessary|right)\b|\bdo the needful\b|\bplease (?:help|act)\b",
    re.IGNORECASE,
)  # fmt: skip
_CONSENT: Final = re.compile(
    r"^(?:yes|yep|yeah|yup|sure|ok|okay|go|go ahead|go on|continue|proceed|do it|do that|please do|carry on|right|correct|exactly|confirmed?|fine|absolutely|of course|definitely|that's right|sounds good|y)(?:\b[\s,.!]*(?:please|do(?: it| that)?|go ahead|then|thanks|now|on))*[\s.!]*$",
    re.IGNORECASE,
)
_REFUSAL: Final = re.compile(
    r"^(?:(?:oh|ah|ok|okay|well|then|please|actually|hm+|hmm+|no)[,\s]+)*(?:no|nope|nah|rather not|better not|never mind|nevermind|forget it|forget about it|don't|do not|stop|leave it|not now|neither(?: of them)?|none(?: of them)?|(?:i(?:'ve| have)? )?changed my mind|no thanks|no thank you|no way|scratch that|skip that|scrap that|drop that idea|i take (?:that|it) back|forget what i said|do nothing|let it be|keep it(?: as it is| the way it is)?|(?:it|that|everything) stays|(?:that's|that is) a no|(?:absolutely|certainly|definitely|of course) not|i said no|not (?:that|this)(?: one)?|(?:that's|that is|it's|it is) not necessary|let's not(?: do (?:that|it|this))?|i'd rather (?:you|we) (?:didn't|left it|kept it)|on second thought(?:s)?,? no)[\s.!,]*(?:thanks|thank you)?[\s.!]*$",
    re.IGNORECASE,
)
_EXCLUDED: Final = re.compile(
    r"[,]?\s+(?:(?:but |and )?not (?!only|just|least|later|more|less|above|below|ready|yet|before|after|until)|without (?!delay|fail|hesitation)|rather than |instead of |except(?: for)? |apart from |other than |but (?:leave|keep|don't)\b)(?P<what>[^,.;]+)",
    re.IGNORECASE,
)
_CAUSATIVE: Final = re.compile(
    r"^(?:get|have|want|need)\s+(?P<object>.+?)\s+(?P<verb>\w+(?:ed|en)|done|set|cut|shut|sent|put|run)(?P<particle>\s+(?:up|down|off|on|out|back))?(?P<rest>\b.*)$",
    re.IGNORECASE,
)


_PERSONS: Final = frozenset(
    ["i", "we", "he", "she", "they", "you", "someone", "somebody", "everybody", "everyone", "nobody"]
)


@lru_cache(maxsize=1024)
def read_intent(clause: Clause, verbs: frozenset[str] = frozenset()) -> Reading:
    """Classify `clause`; `verbs` are further base forms that can begin a request."""
    text = clause.text
    masked = mask_quotes(text)
    if re.fullmatch(r"\W*(?:[A-Z][\w.]*\s*){0,3}:?\s*█+\W*", masked):
        return Reading(clause, Intent.REPORT, text)
    if _LOOKING.match(masked.strip()):
        return Reading(clause, Intent.STATEMENT, text)
    if _CONSENT.match(masked.strip()):
        return Reading(clause, Intent.CONSENT, text)
    if _REFUSAL.match(masked.strip()):
        return Reading(clause, Intent.REFUSAL, text)
    filler = _FILLER.match(masked)
    at = filler.end() if filler else 0
    core = masked[at:]
    tag = re.search(r"[\s,]+(?:will|would|can|could) you(?: please)?\W*$", core, re.IGNORECASE)
    if tag and tag.start() > 3:
        core = core[: tag.start()]
        masked, text = masked[:at] + core, text[: at + len(core)]
        clause = replace(clause, text=text, question=False)
    if not core.strip(" .,!?"):
        return Reading(clause, Intent.STATEMENT, text)
    excluded = ""
    cut = _EXCLUDED.search(core)
    if (
        cut
        and cut.start() > 2
        and not re.search(
            r"\b(?:must|should|may|can|do|does|is|are|will|shall|to|was|were|would|could)$",
            core[: cut.start()],
            re.I,
        )
    ):
        excluded = cut["what"]
        core = core[: cut.start()] + core[cut.end() :]
        text = text[:at] + core if "█" not in core else text
    asks = clause.question or bool(_WH.match(core))
    polite = _POLITE.match(core)
    if _DELEGATION.search(core) and not _PROHIBITION.search(core) and not _starts_hypothetical(core, asks):
        return Reading(clause, Intent.DELEGATION, text, excluded)
    if _CAPABILITY.search(core):
        return Reading(clause, Intent.CAPABILITY, text, excluded)
    if _HYPOTHETICAL.search(core) and not (
        polite
        and not asks
        and not re.search(
            r"\b(?:wonder|wish|might|maybe|perhaps|have been|could have|should have|would have)", core, re.I
        )
    ):
        softened = re.match(r"^(?:can|could|would|will) (?:you|we)\b", core, re.IGNORECASE)
        if not softened or re.search(r"\b(?:have|'ve)\s+\w+(?:ed|en|ne|ut|et)\b", core[:30], re.IGNORECASE):
            return Reading(clause, Intent.HYPOTHETICAL, text, excluded)
    if re.match(r"^did (?:i|we|you|he|she|they|someone|anyone)\b", core, re.IGNORECASE):
        return Reading(clause, Intent.QUESTION, text, excluded)
    if (
        _PROHIBITION.search(core)
        and not (asks and not re.search(r"\b(?:never|don't|do not)\b", core, re.I))
        and not _negated_state(core, polite is not None)
    ):
        return Reading(clause, Intent.PROHIBITION, text, excluded)
    frame = polite.end() if polite else 0
    body = text[at + frame :] if "█" in masked or not excluded else core[frame:]
    inner = core[frame:]
    second = _POLITE.match(inner) if polite else None
    if second:
        body, inner = body[second.end() :], inner[second.end() :]
    first = _first_word(inner)
    if polite and asks and re.match(r"^(?:can|could|may|might) (?:i|we) ", core, re.IGNORECASE):
        wanted = re.search(r"\b(?:have|get)\b.*\b(?:at|to|on|off|for)\b", core, re.IGNORECASE)
        return Reading(clause, Intent.NEED if wanted else Intent.QUESTION, body, excluded)
    if (
        polite
        and re.match(r"^(?:what about|how about)", core, re.IGNORECASE)
        and lemma(first) not in (verbs or known_verbs())
    ):
        return Reading(clause, Intent.FRAGMENT, body, excluded)
    if asks and not polite and _WH.match(core) and not (first in ("do", "have") and _verbal(inner, verbs)):
        return Reading(clause, Intent.QUESTION, text, excluded)
    if polite and (lemma(first) in (verbs or known_verbs()) or first in ("let", "make", "be", "do")):
        return Reading(clause, Intent.REQUEST, _active(_bare(body)), excluded)
    if polite and not asks and re.match(r"^(?:i|we|you)\b", core, re.IGNORECASE):
        if _CAUSATIVE.match("get " + inner):
            return Reading(clause, Intent.REQUEST, _active("get " + body), excluded)
        return Reading(clause, Intent.NEED, body, excluded)
    if polite and re.match(r"^(?:please|any chance of)", core, re.IGNORECASE):
        return Reading(clause, Intent.FRAGMENT, body, excluded)
    if (
        _verbal(inner, verbs)
        and not _subject_first(inner)
        and not re.match(r"^\w+ (?:is|are|was|were|has|have|had|will|'s)\b", inner, re.IGNORECASE)
    ):
        if _PAST.search(core) and re.match(r"^\w+ed\b", inner):
            return Reading(clause, Intent.REPORT, text, excluded)
        return Reading(clause, Intent.REQUEST, _active(body), excluded)
    if _NEED.search(core):
        return Reading(clause, Intent.NEED, text[at:], excluded)
    needed = _NEEDS_DOING.search(core)
    if needed and needed["modal"].lower().startswith("need") and not asks and not _PAST.search(core):
        return Reading(clause, Intent.NEED, text[at:], excluded)
    if _REPORT.search(core) or _past_tense(core) or (_PAST.search(core) and not asks):
        return Reading(clause, Intent.REPORT, text, excluded)
    if asks:
        return Reading(clause, Intent.QUESTION, text, excluded)
    if re.search(
        r"\b(?:can|may) (?:now )?(?:go(?: home)?|leave|be \w+ed|(?!be\b|have\b)\w+(?: \S+){0,4} (?:again|now))$",
        core,
        re.IGNORECASE,
    ):
        return Reading(clause, Intent.NEED, text[at:], excluded)
    needs = _NEEDS_DOING.search(core)
    if needs and _done_to(needs, verbs):
        return Reading(clause, Intent.NEED, text[at:], excluded)
    if re.search(
        r"\b\w+(?:ed|en|set|put|shut|cut|run) (?:to \S+ )?(?:by (?:the|my|our|someone|[A-Z])|since\b)|\bsince (?:\d|noon|this|the|yesterday|last|monday|tuesday|wednesday|thursday|friday|saturday|sunday)",
        core,
    ):
        return Reading(clause, Intent.REPORT, text, excluded)
    if _finite(core):
        return Reading(clause, Intent.STATEMENT, text, excluded)
    return Reading(clause, Intent.FRAGMENT, body, excluded)


def arranges(reading: Reading) -> bool:
    """Whether a statement says how something is to be ("the kids should get 20 degrees", "X can go on", "he gets 402")."""
    stated = (
        reading.intent is Intent.STATEMENT and not reading.clause.question and not reading.clause.condition
    )
    return stated and bool(_ARRANGED.match(reading.clause.text)) and not _REPORT.search(reading.clause.text)


def _starts_hypothetical(core: str, asks: bool) -> bool:
    return asks and bool(_HYPOTHETICAL.search(core) or _CAPABILITY.search(core))


def _negated_state(core: str, polite: bool) -> bool:
    """Whether a negation tells how things are instead of forbidding ("it isn't ready", "I can't see the pods")."""
    if re.search(r"\b(?:never|don't|do not|no need|not allowed|nobody|no one)\b", core, re.IGNORECASE):
        return bool(
            re.match(
                r"^(?:i|we|they|he|she|it) (?:don't|do not|never) (?:know|see|understand|have|hear|find|get|feel)\b",
                core,
                re.IGNORECASE,
            )
        )
    return polite and bool(re.search(r"\b(?:isn't|aren't|wasn't)\b", core, re.IGNORECASE))


def _bare(body: str) -> str:
    """stopping line 3 -> stop line 3 (behind "would you mind")."""
    m = re.match(r"^(\w+ing)\b", body.strip())
    return lemma(m.group(1)) + body.strip()[m.end() :] if m and lemma(m.group(1)) in known_verbs() else body


_ENSURED: Final = re.compile(
    r"^(?:make sure|see to it|ensure|be sure|check)(?: that)? (?P<object>.+?) (?:is|are|gets|get) (?P<verb>\w+(?:ed|en|ing)|set|cut|shut|open|off|on)(?P<rest>\b.*)$",
    re.IGNORECASE,
)
_STATES: Final = {"off": "turn off", "on": "turn on", "open": "open", "running": "start", "going": "start"}


def _active(body: str) -> str:
    """get line 3 stopped -> stop line 3; make sure that line 3 is stopped -> stop line 3."""
    ensured = _ENSURED.match(body.strip())
    if ensured and not body.lower().startswith("check"):
        verb = ensured["verb"].lower()
        return f"{_STATES.get(verb) or lemma(verb)} {ensured['object']}{ensured['rest']}"
    m = _CAUSATIVE.match(body.strip())
    if not m or lemma(m["verb"]) not in known_verbs() or m["object"].count(" ") > 5:
        return body
    return f"{lemma(m['verb'])}{m['particle'] or ''} {m['object']}{m['rest']}"


def _first_word(text: str) -> str:
    return next((t.low for t in tokenize(text) if t.is_word), "")


def _verbal(text: str, verbs: frozenset[str]) -> bool:
    """Whether `text` begins with a verb in its base form."""
    tokens = [t for t in tokenize(text) if t.is_word]
    if not tokens:
        return False
    first = tokens[0].low
    if first in ("give", "get", "make", "let", "go", "have", "bring", "do", "tell", "put"):
        return True
    if first in (
        "is",
        "are",
        "what",
        "how",
        "who",
        "which",
        "when",
        "where",
        "up",
        "new",
        "count",
        "last",
        "level",
        "order",
        "down",
        "off",
        "on",
    ):
        return (
            first in ("count", "order", "level", "up")
            and len(tokens) > 1
            and tokens[1].low in ("the", "a", "all", "my", "our", "some")
        )
    return first in (verbs or known_verbs()) and (first == tokens[0].low)


_NOMINAL: Final = re.compile(
    r"^(?P<first>\w+)(?P<gap>(?: (?!that\b|which\b|who\b|the\b|a\b|an\b|it\b|them\b|whether\b|if\b|how\b|what\b|me\b|us\b)\S+){0,3}) (?:is|are|was|were|has|have|had|got|gets|will|would|can|could|must|needs?|should|may|might|does|did|seems|looks|failed|stays?|remains?)\b",
    re.IGNORECASE,
)
_SPEAKING: Final = frozenset(
    [
        "tell",
        "check",
        "see",
        "make",
        "ensure",
        "verify",
        "let",
        "show",
        "notify",
        "inform",
        "say",
        "ask",
        "remind",
        "confirm",
        "find",
        "know",
        "look",
        "warn",
        "announce",
        "message",
        "radio",
        "note",
        "report",
        "mail",
        "text",
        "write",
        "page",
        "call",
        "ping",
        "get",
        "have",
        "keep",
    ]
)


def _subject_first(text: str) -> bool:
    """Whether what looks like a verb is the subject's noun: "build 8 got cancelled", "order 66 is late"."""
    m = _NOMINAL.match(text)
    return m is not None and m["first"].lower() not in _SPEAKING


_SET_BY: Final = re.compile(
    r"^(?!please\b|to\b)(?:the |our |my )?[a-z]+(?: [a-z]+)? (?:set|put|shut|cut|let) (?:the|all|both|a|an|its|[A-Z][\w-]*)\b"
)


def _past_tense(core: str) -> bool:
    """Whether a finite past form stands behind a short subject: "the kids started …", "Rosa booked …"."""
    if _SET_BY.match(core) and lemma(_first_word(core)) not in known_verbs():
        return True
    tokens = [t for t in tokenize(core) if t.is_word][:6]
    for i, token in enumerate(tokens[1:], 1):
        low = token.low
        base = lemma(low)
        if i == 1 and tokens[0].low in _PERSONS and low.endswith("ed"):
            return True
        past = (low.endswith("ed") and base != low) or (
            low in IRREGULAR
            and IRREGULAR[low] != low
            and not low.endswith("s")
            and low not in ("been", "being", "is", "are", "am")
        )
        if past and base in known_verbs():
            previous = tokens[i - 1].low
            return previous not in ("a", "an", "the", "be", "get", "to", "of", "is", "are", "with", "for")
    return False


def _done_to(needs: re.Match[str], verbs: frozenset[str]) -> bool:
    """Whether "needs …" speaks of something to be done (needs swapping, has to be stopped, is due for inspection)."""
    to, rest = (needs["to"] or "").strip().lower(), _first_word(needs["rest"])
    modal = needs["modal"].lower()
    if modal in ("has", "have", "must", "had better", "ought"):
        return to in ("to be", "be", "to") and (lemma(rest) in (verbs or known_verbs()))
    return modal.startswith(("need", "want", "require", "is due"))


def _finite(core: str) -> bool:
    """Whether a subject and a finite verb make it a full sentence."""
    if re.search(
        r"\b(?:is|are|was|were|am|has|have|had|does|do|did|seems?|looks?|feels?|sounds?|goes|keeps?|shows?|says?|can|could|should|would|will|must|(?<!of )may|might)\b|\w'(?:re|m|ve|ll|d)\b|n't\b"
        r"|\b(?:it|that|there|he|she|what|who|where|here|how|this|everything|something|nothing)'s\b"
        r"|\w's (?:not|in|on|too|full|out|broken|nearly|almost|empty|dead|stuck|down|up|a|an|the|very|so|getting|still|idle|gone|back|off|\w+ing)\b",
        core,
        re.IGNORECASE,
    ):
        return True
    tokens = [t for t in tokenize(core) if t.is_word]
    counted = bool(tokens) and (tokens[0].low in NUMBER_WORDS or tokens[0].text.isdigit())
    for token in tokens[2 if counted else 1 : 5]:
        low = token.low
        if (
            low.endswith("s")
            and not low.endswith("ss")
            and lemma(low) != low
            and lemma(low) in known_verbs()
            and tokens[0].low not in ("a", "an", "all", "both", "only", "the last", "last")
        ):
            following = [t.low for t in tokens[tokens.index(token) + 1 :][:1]]
            return bool(following) and following[0] not in ("to", "of", "for", "at", "from", "and")
    return False
