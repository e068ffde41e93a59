"""General English: word lists that hold in any domain, and nothing of any domain.

Chosen: closed or nearly closed classes (negators, pronouns, prepositions, number words, verb groups with their
opposites), because these are what embeddings get wrong: "start" and "stop" are neighbours in every embedding space.
Refused: lists of things ("pump", "invoice", "pod"); what a thing is called comes from the tools' own schemas.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


#: Groups of verbs (and particle verbs) that ask for the same kind of change. A verb may stand in several groups.
VERB_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "start": _phrases(
        "start, launch, begin, boot, activate, run, commence, initiate, kick off, fire up, turn on, switch on, power on,"
        " power up, spin up, bring up, start up, boot up, trigger, execute, put on, get going, light up, wake up, wake,"
        " get running, set running, set going, kick"
    ),
    "stop": _phrases(
        "stop, halt, end, cease, terminate, kill, shut down, shut off, turn off, switch off, power off, power down,"
        " deactivate, quit, spin down, bring down, take down, cut off, abort, finish, bring to a halt, bring to a stop,"
        " knock off, put out, shutdown, take offline"
    ),
    "restart": _phrases(
        "restart, reboot, bounce, power cycle, reset, cycle, relaunch, recycle, reload, re-start, rerun, retry, redo, run again, turn off and on"
    ),
    "pause": _phrases("pause, suspend, hold, freeze, put on hold, halt, hold off, interrupt"),
    "resume": _phrases(
        "resume, continue, unpause, unfreeze, carry on, proceed, reinstate, pick up again, unsuspend"
    ),
    "raise": _phrases(
        "raise, increase, boost, bump, bump up, crank up, turn up, speed up, step up, push up, up, elevate, lift, grow,"
        " warm up, heat up, preheat, accelerate, warm, heat, ramp up, scale up, extend, brighten, add, expand, hike, take up"
    ),
    "lower": _phrases(
        "lower, decrease, reduce, drop, cut, slow, slow down, turn down, step down, bring down, dial back, dial down,"
        " cool, cool down, chill, decelerate, ramp down, scale down, shrink, dim, trim, shorten, throttle, throttle back, ease,"
        " take down, cut back, scale back, lessen, diminish, knock down, tone down"
    ),
    "set": _phrases(
        "set, change, adjust, put, make, bring, configure, modify, tune, alter, switch, turn, update, move, edit, take,"
        " scale, resize, correct, revise, dial, keep, go, regulate, raise, lower, increase, decrease, reduce, drop, slow,"
        " slow down, speed up, bump, cut, turn up, turn down, scale up, scale down, have, cap, limit"
    ),
    "read": _phrases(
        "get, read, show, check, list, tell, look up, look at, find, see, view, display, fetch, query, report, inspect,"
        " give, search, look for, pull up, retrieve, what, know, examine, describe, count, monitor, review, measure, how,"
        " which, who, when, where, look into, print, investigate, compare, calculate, is, are, lookup, browse, peek,"
        " return, present, return, summarise, summarize, track, verify, explain, estimate, forecast"
    ),
    "create": _phrases(
        "create, make, add, open, file, raise, log, register, set up, new, write, submit, draft, generate, insert, build,"
        " establish, put in, record, enter, introduce, provision, compose, start, deploy, put down, note"
    ),
    "delete": _phrases(
        "delete, remove, drop, clear, get rid of, erase, purge, destroy, wipe, take out, discard, throw away, uninstall,"
        " scrap, take off, tear down, strip, empty, flush, take away"
    ),
    "cancel": _phrases(
        "cancel, call off, abort, revoke, withdraw, undo, void, annul, scrap, drop, rescind, retract, unbook, delete,"
        " remove, get rid of"
    ),
    "send": _phrases(
        "send, say, notify, message, radio, ping, alert, inform, let know, email, mail, text, page, forward, post, write, write to,"
        " announce, broadcast, call, warn, tell, contact, drop a line, shoot, remind, give a heads up, publish, report,"
        " dispatch, get hold of, reach out"
    ),
    "book": _phrases(
        "book, reserve, schedule, arrange, plan, set up, fix, organise, organize, order, put in, plan in"
    ),
    "move": _phrases(
        "move, transfer, relocate, shift, migrate, switch, bring, carry, route, reroute, redirect, divert, take, swap,"
        " send, put, transport, relocate"
    ),
    "reschedule": _phrases(
        "reschedule, postpone, push back, move, delay, defer, put off, shift, rebook, bring forward"
    ),
    "assign": _phrases(
        "assign, give, allocate, hand, delegate, appoint, put, hand over, grant, attach, dedicate"
    ),
    "unassign": _phrases("unassign, revoke, withdraw, take away, deallocate, remove"),
    "enable": _phrases("enable, activate, turn on, switch on, arm, allow, permit, unblock"),
    "disable": _phrases("disable, deactivate, turn off, switch off, disarm, forbid, deny, mute, silence"),
    "lock": _phrases(
        "lock, secure, block, lock up, lock down, seal, bar, close off, freeze, quarantine, isolate"
    ),
    "unlock": _phrases("unlock, unblock, release, free, free up, unseal, unfreeze"),
    "open": _phrases("open, unseal, open up, reopen, uncover"),
    "close": _phrases(
        "close, shut, wrap, resolve, complete, mark done, finish, settle, wrap up, seal, cover"
    ),
    "approve": _phrases("approve, accept, confirm, authorise, authorize, sign off, okay, ratify, clear"),
    "reject": _phrases("reject, decline, refuse, deny, turn down, disapprove, dismiss"),
    "acknowledge": _phrases("acknowledge, ack, confirm, dismiss, silence, mark seen, accept"),
    "rename": _phrases("rename, relabel, retitle, call"),
    "copy": _phrases("copy, duplicate, clone, replicate, back up, backup, snapshot, save"),
    "restore": _phrases(
        "restore, recover, bring back, roll back, rollback, revert, undo, reinstate, put back, return"
    ),
    "update": _phrases(
        "update, edit, modify, change, amend, revise, upgrade, correct, patch, refresh, alter, bump"
    ),
    "pay": _phrases("pay, settle, transfer, wire, remit, charge, bill, invoice"),
    "refund": _phrases("refund, reimburse, pay back, give back, credit, return"),
    "charge": _phrases("charge, recharge, fill, fill up, top up, load, refill, replenish"),
    "discharge": _phrases("discharge, drain, empty, unload, dump, bleed, flush, evacuate"),
    "merge": _phrases("merge, combine, join, unite, consolidate, pool"),
    "split": _phrases("split, divide, separate, break up, partition"),
    "connect": _phrases("connect, link, attach, plug in, join, mount, couple, hook up, pair, bind"),
    "disconnect": _phrases("disconnect, unlink, detach, unplug, unmount, decouple, unhook, eject, unpair"),
    "order": _phrases("order, buy, purchase, reorder, get, procure, request"),
    "print": _phrases("print, print out"),
    "test": _phrases("test, try, try out, check, verify, probe, validate, run"),
    "clean": _phrases("clean, wash, rinse, wipe, tidy, purge, flush, sweep, sanitise, sanitize, disinfect"),
    "escalate": _phrases("escalate, hand up, raise, bump, upgrade"),
    "downgrade": _phrases("downgrade, de-escalate, demote, lower"),
    "promote": _phrases("promote, upgrade, elevate, advance"),
    "upload": _phrases("upload, push, publish, import, load, ingest"),
    "download": _phrases("download, pull, export, save, fetch, dump"),
    "join": _phrases(
        "join, enrol, enroll, subscribe, sign up, add, enlist, invite, admit, register, check in"
    ),
    "leave": _phrases(
        "leave, unsubscribe, unenroll, sign out, remove, kick, expel, check out, discharge, evict"
    ),
    "apply": _phrases("apply, use, put, spread, administer, give, spray, dose"),
    "calibrate": _phrases("calibrate, recalibrate, zero, tare, align, re-calibrate"),
    "replace": _phrases("replace, swap, exchange, substitute, change, switch out, renew"),
    "extend": _phrases("extend, prolong, lengthen, renew, stretch"),
    "shorten": _phrases("shorten, cut short, truncate, curtail"),
    "show": _phrases("show, unhide, reveal, display"),
    "hide": _phrases("hide, conceal, mask"),
    "deliver": _phrases("deliver, bring, send, ship, dispatch, drop off, send up, hand over"),
    "collect": _phrases("collect, pick up, fetch, gather, harvest"),
    "water": _phrases("water, irrigate, soak, sprinkle"),
    "play": _phrases("play, put on, stream"),
    "deploy": _phrases(
        "deploy, roll out, ship, release, install, push, publish, put live, push out, go live, upgrade, update"
    ),
    "remind": _phrases("remind, nudge, prompt, jog, ping, set a reminder"),
    "submit": _phrases("submit, hand in, turn in, claim, file, send in, put in, enter"),
    "reserve": _phrases(
        "reserve, set aside, put aside, hold back, keep back, earmark, save, block, hold, keep, book"
    ),
    "exclude": _phrases("block, ban, exclude, keep out, keep, prevent, bar, shut out, blacklist"),
    "delay": _phrases("delay, postpone, put off, push back, hold back, start late, set back, retard"),
    "withdraw": _phrases("write off, take off, scrap, discard, throw away, remove, withdraw, take out"),
    "let": _phrases("allow, let, permit, enable, unblock, free"),
    "transport": _phrases("send, drive, bring, take, dispatch, route, steer, ferry, carry, deliver"),
    "price": _phrases("charge, price, cost"),
    "ask": _phrases("ask, request, call for, demand"),
    "evacuate": _phrases("drain, evacuate, empty, clear, vacate, cordon"),
}

#: Groups whose members undo each other. A request in one group never becomes a tool of the other.
OPPOSITES: Final[tuple[tuple[str, str], ...]] = (
    ("start", "stop"),
    ("pause", "resume"),
    ("stop", "resume"),
    ("start", "pause"),
    ("raise", "lower"),
    ("create", "delete"),
    ("create", "cancel"),
    ("book", "cancel"),
    ("enable", "disable"),
    ("start", "disable"),
    ("enable", "stop"),
    ("lock", "unlock"),
    ("open", "close"),
    ("open", "lock"),
    ("close", "unlock"),
    ("approve", "reject"),
    ("assign", "unassign"),
    ("copy", "delete"),
    ("restore", "delete"),
    ("pay", "refund"),
    ("charge", "discharge"),
    ("charge", "refund"),
    ("merge", "split"),
    ("connect", "disconnect"),
    ("upload", "download"),
    ("join", "leave"),
    ("promote", "downgrade"),
    ("escalate", "downgrade"),
    ("extend", "shorten"),
    ("show", "hide"),
    ("reschedule", "cancel"),
    ("deliver", "collect"),
    ("start", "restart"),
    ("stop", "restart"),
    ("extend", "cancel"),
    ("exclude", "let"),
    ("exclude", "unlock"),
    ("reserve", "unlock"),
    ("deploy", "restore"),
    ("lock", "let"),
)

#: Prefixes that turn a verb into its opposite (lock, unlock; cordon, uncordon).
REVERSING_PREFIXES: Final = ("un", "dis", "de")

#: Common base-form verbs beside those of the groups; used to see where a new clause begins.
OTHER_VERBS: Final = _words(
    "roll ship nudge claim evict acquire administer adopt anneal apologise appoint arrange assemble assess award bill blend boil breed"
    " brief broaden burn bury calm circulate classify clamp climb compare"
    " compensate condense conduct congratulate consult contain cook curate darken decant"
    " decline decorate deduct define deflate dehumidify dial dice digitise direct disable dismantle dispose dissolve"
    " distribute donate downsize eject elect employ empty engage engrave enlarge escort estimate"
    " evaluate exempt expel express extinguish fertilise fertilize fetch forgive"
    " forward foster fumigate furnish garnish grant graze grease halve harden hoist "
    " humidify identify ignite illuminate impound improve inoculate insulate insure interview introduce invent "
    " kick launch lighten list lodge loosen lower lure magnify marinate moisten"
    " moor navigate nominate normalise notarise nurse obtain occupy offload overhaul overtake paint pardon"
    " pave pay peel photograph place plant plough plow polish post praise preheat prescribe"
    " pressurise prick prioritise produce promise proofread protect prove punch punish purify quench "
    " reassign rebalance rebook recalculate recall recharge recommend recruit recycle refine reform refuel refurbish refuse regrade"
    " rehearse reheat rehire reimburse reinforce reject relay relight relist relocate remodel render rent repaint repack repay rephrase replant repot"
    " reprint reroute resend reseal reserve reshelve resize resolve respond restock restrict retain retire retract retrain retune"
    " return reverse review revive revoke reward rewrite rinse ripen rotate sanction scold scrape "
    " sculpt seed separate serve sew sharpen shave shear shine shoot shred shuffle shut sieve simmer"
    " slow smooth soak solder sow splice spread sprinkle squeeze staple "
    " steer sterilise sterilize stitch straighten strengthen stretch strike subscribe substitute"
    " summon supply suppress suspend sweeten swipe teach tether thaw "
    " treat trigger truncate tune undock unfold unhook unload"
    " unlatch unlink unload unmount unpack unplug unscrew unseal unsubscribe untie unwrap upgrade upload upsize vaccinate "
    " varnish void vote weaken weigh weld whip whisk widen wipe "
    " accept act advise allow analyse analyze answer append archive ask attach avoid backup balance block brew bring"
    " bump buy call change channel check choose clip collect come commit compile compress convert cook cool cordon"
    " correct cover create credit cut deal decide declare decrease defrost deploy detach determine dim dip discard"
    " dispense divert do dock document dose draw drive drop dry dump encrypt enrich ensure evacuate exclude expire"
    " export extract fail feed figure fill filter fix flag flip fold follow freeze gather generate get give go grab"
    " greet grind group grow guide handle hang help highlight hire ignore import include increase inflate inject"
    " install irrigate isolate issue keep label leave lend let level lift limit load look lookup maintain make manage map mark"
    " match measure merge mix mount need nudge offer operate order override pack park patch perform pick place plug"
    " polish pour prepare press prevent print prioritise prioritize process produce prune pull pump purge push put"
    " quarantine query queue rate reach rebuild recall receive record redirect redo reduce refill refresh register"
    " reindex reinstall relabel release reload remind render renew repair repeat replay reply request require rerun"
    " reset retry return reuse review revise rinse rotate run sample save say scan schedule seal search secure seed"
    " select sell serve service settle shake share shift ship sign skip snooze solve sort spin spray squash stage"
    " stain stamp stay stir store stream submit subtract sync take tag take test thank throttle tighten toggle top"
    " touch train translate transmit trim try tune turn unload unpack use vacuum validate vent ventilate verify wait"
    " wake walk warm wash watch water weigh withdraw work wrap write zero bake confirm raise plan email"
    " text ping page bill invoice book charge dim mow sow harvest clone pin unpin mute unmute tail detach demote"
)

NEGATORS: Final = _words(
    "not n't never no don't dont doesn't didn't won't shouldn't mustn't can't cannot couldn't wouldn't neither nor without"
)

STOPWORDS: Final = _words(
    "a an the this that these those it its he she they them him her his their my our your me i we you us of to in on"
    " at by for from with about into onto over under up down off out as is are was were be been being am do does did"
    " done has have had having will would shall should can could may might must and or but if then else so than too"
    " very just also please now there here all any each some what which who whom whose when where why how not no"
    " yes ok okay let lets let's us again back more most much many such own same other another both few only"
    " per via until till between during before after above below while because thanks thank hey hi hello need want"
    " like get got make give go going i'd i'll i'm we'd we'll we're it's that's there's what's you're kindly could"
    " maybe bit little right away soon possible quickly today currently moment"
)

DETERMINERS: Final = _words(
    "a an the this that these those my our your his her its their all any each every both some no another either"
)

PREPOSITIONS: Final = _words(
    "to in on at by for from with about into onto over under of off out as until till between during before after above below"
    " through against toward towards within inside outside near behind beyond via per since upon across along around"
)

PRONOUNS: Final = _words(
    "it they them this that these those one ones he she him her itself themselves same there"
)

NUMBER_WORDS: Final[dict[str, float]] = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip

MULTIPLIERS: Final[dict[str, float]] = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}

ORDINALS: Final[dict[str, int]] = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "eleventh": 11, "twelfth": 12,
}  # fmt: skip

#: Irregular forms to their base; regular inflection is taken off by rule.
IRREGULAR: Final[dict[str, str]] = {
    "was": "be", "were": "be", "is": "be", "are": "be", "been": "be", "am": "be", "being": "be", "has": "have",
    "had": "have", "did": "do", "does": "do", "done": "do", "went": "go", "gone": "go", "took": "take",
    "taken": "take", "gave": "give", "given": "give", "made": "make", "sent": "send", "got": "get", "gotten": "get",
    "ran": "run", "brought": "bring", "began": "begin", "begun": "begin", "broke": "break", "broken": "break",
    "built": "build", "bought": "buy", "chose": "choose", "chosen": "choose", "came": "come", "drew": "draw",
    "drawn": "draw", "drove": "drive", "driven": "drive", "fell": "fall", "fallen": "fall", "felt": "feel",
    "found": "find", "froze": "freeze", "frozen": "freeze", "grew": "grow", "grown": "grow", "held": "hold",
    "kept": "keep", "knew": "know", "known": "know", "left": "leave", "lent": "lend", "lost": "lose", "met": "meet",
    "paid": "pay", "rose": "rise", "risen": "rise", "said": "say", "saw": "see", "seen": "see", "sold": "sell",
    "shook": "shake", "shown": "show", "spoke": "speak", "spun": "spin", "stood": "stand", "told": "tell",
    "thought": "think", "threw": "throw", "thrown": "throw", "woke": "wake", "woken": "wake", "wrote": "write",
    "written": "write", "tore": "tear", "torn": "tear", "withdrew": "withdraw", "withdrawn": "withdraw",
    "undid": "undo", "undone": "undo", "overrode": "override", "fed": "feed", "hung": "hang", "laid": "lay",
    "led": "lead", "lit": "light", "slid": "slide", "stuck": "stick", "swept": "sweep", "swapped": "swap",
    "wound": "wind", "children": "child", "people": "person", "men": "man", "women": "woman", "shelves": "shelf",
    "data": "data", "series": "series", "status": "status", "gas": "gas", "bus": "bus", "lens": "lens",
    "news": "news", "access": "access", "process": "process", "address": "address", "focus": "focus",
    "press": "press", "pass": "pass", "class": "class", "less": "less", "indices": "index", "analyses": "analysis",
    "dying": "die", "lying": "lie", "tying": "tie", "bigger": "big", "hotter": "hot", "better": "good",
    "lower": "lower", "cover": "cover", "speed": "speed", "need": "need", "feed": "feed", "bed": "bed", "red": "red",
    "shed": "shed", "seed": "seed", "weed": "weed", "during": "during", "morning": "morning", "evening": "evening",
    "building": "building", "string": "string", "spring": "spring", "ring": "ring", "thing": "thing",
    "ceiling": "ceiling", "bring": "bring", "king": "king", "wing": "wing", "ping": "ping", "swing": "swing",
    "something": "something", "anything": "anything", "everything": "everything", "nothing": "nothing",
    "embed": "embed", "exceed": "exceed", "proceed": "proceed", "succeed": "succeed", "always": "always",
    "ventilation": "ventilation", "yes": "yes", "this": "this", "its": "its", "as": "as", "us": "us", "plus": "plus",
    "minus": "minus", "virus": "virus", "canvas": "canvas", "atlas": "atlas", "hundred": "hundred",
}  # fmt: skip

#: Adjectives in which a person names a wished or observed state, and the verb group that brings it about.
COMPARATIVES: Final[dict[str, str]] = {
    "higher": "raise", "faster": "raise", "warmer": "raise", "hotter": "raise", "brighter": "raise", "louder": "raise",
    "longer": "raise", "quicker": "raise", "up": "raise", "greater": "raise", "larger": "raise", "bigger": "raise",
    "lower": "lower", "slower": "lower", "cooler": "lower", "colder": "lower", "dimmer": "lower", "quieter": "lower",
    "shorter": "lower", "smaller": "lower", "down": "lower", "darker": "lower", "less": "lower", "fewer": "lower",
}  # fmt: skip

MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
