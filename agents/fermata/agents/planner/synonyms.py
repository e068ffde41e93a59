"""General English synonyms for what listed options are usually called, where embeddings are too coarse.

Each line is a group of words and short phrases that a person uses for the same quality, state, frequency or measure.
Chosen: qualities, states, frequencies, measures and channels, which occur in any domain. Refused: names of things.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

from functools import lru_cache
from typing import Final

_GROUPS: Final = """
temperature: hot, how hot, warm, how warm, cold, how cold, cool, heat, degrees, temp, chilly, freezing
humidity: humid, how humid, damp, dry, how dry, moisture, moist
speed: fast, how fast, slow, how slow, quick, velocity, pace, rpm, revolutions
pressure: psi, bar, how much pressure
power: kilowatts, watts, kw, power draw, electricity, drawing, wattage, energy draw
vibration: shaking, shake, shaky, vibrates, rattle, rattling, wobble, wobbling, trembling
noise: loud, noisy, loudness, sound level
weight: heavy, how heavy, mass, kilos
brightness: bright, dim, how bright
wear: worn, worn out, how worn, tool wear
level: how full, fill level
urgent: asap, emergency, pressing, right away, immediately, top priority, at once, immediate, life and death
critical: really bad, very bad, serious, severe, worst, gravest, worst ones, grave, dire, life-threatening, catastrophic, red alert
high: grave, serious, severe, bad, worst, important, top, strong, elevated, intense, big, maximum priority, urgent, major, significant
low: nothing serious, not serious, nothing urgent, not bad, harmless, minor, unimportant, little, weak, small, no hurry, no rush, whenever, not urgent, trivial, gentle, slight, faint
medium: moderate, middle, average, middling, mid, normal
normal: regular, standard, usual, ordinary, default, routine, medium
warning: warn, caution, alert, warnings
error: errors, failures, failing, wrong, problems
info: information, informational, notice, fyi
debug: verbose, everything, detailed
damaged: broken, crushed, dented, smashed, torn, cracked, scratched, defective, faulty, bent, shattered, ruined, damage
lost: missing, vanished, disappeared, gone, stolen, can't find, nowhere, cannot find, can find, mislaid
expired: out of date, best-before, best before, stale, spoiled, past its date, past their best, outdated, past date, overdue, too old, gone off
lubrication: grease, greasing, oil, oiling, lubricate, lube
inspection: check, check-up, checkup, look over, examination, examine, inspect, once-over, look at
repair: fix, mend, fixing, mending
cleaning: clean, wash, scrub, wipe, tidy, washing
change: swap, swapping, exchange, replace, replacing, replacement, renewing, new one
calibration: calibrate, recalibrate, adjust
available: free, reachable, back, here, around, open, present, ready, in
busy: occupied, engaged, in a meeting, tied up, swamped
away: out, gone, absent, leaving, going out, not here, out for the day, leave, on holiday, on vacation
do not disturb: bother, bothered, dnd, undisturbed, left alone, quiet, disturb, disturbed, no interruptions
night: sleep, bed, bedtime, sleeping, overnight, nighttime
warm: yellow, yellowish, cosy, cozy, soft, amber
cold: bluish, icy, cool white, crisp
neutral: plain, ordinary, natural
full: fully, whole, entire, complete, completely, entirely, total, max, maximum, all of it, as bright as possible, everything
half: halfway, partial, partly
dimmed: dim, low light, softer, half light, subdued
dark: lights out, pitch dark, black, no light, blackout, out
off: disarmed, disarm, switched off, out, none, deactivate, deactivated, unarmed
on: lit, switched on, active, activate
open: opened, unlocked, wide
closed: shut, close, done, finished, resolved, completed, sealed
active: running, live, current, ongoing, open, enabled
pending: waiting, outstanding, unpaid, unprocessed, not yet done, queued
completed: done, finished, complete, closed, ready
failed: broken, unsuccessful, gone wrong, crashed
cancelled: called off, dropped, canceled
paid: settled, cleared
eco: economy, economical, energy-saving, energy saving, saving, green, thrifty, frugal
comfort: comfortable, cosy, cozy, pleasant
boost: turbo, full power, extra strong, intensive
automatic: auto, by itself, on its own, automatically
manual: by hand, manually, hand
hourly: every hour, each hour, once an hour
daily: every day, each day, once a day, day by day, per day, every morning, every evening, nightly, every night
weekly: every week, each week, once a week, per week
monthly: every month, each month, once a month, per month
yearly: every year, annually, annual, once a year, per year
once: one time, single time, just this time
morning: am, early, breakfast, before noon
afternoon: after lunch, pm
evening: tonight, dinner time, late
express: fast, fastest, overnight, rush, quick, next-day, next day, speedy, quickest, same day
economy: cheap, cheapest, budget, slow, low cost
premium: deluxe, luxury, best, first class, finest, fancy
small: little, tiny, mini, short, smallest
large: big, huge, tall, biggest, great, largest
sms: text, text message, texting
email: mail, e-mail, inbox, by mail
phone: call, telephone, by phone, ring
letter: post, by post, paper
cash: coins, notes, bills
card: credit card, debit, by card
private: secret, hidden, confidential, only me, internal
public: everyone, everybody, open to all, visible to all
increase: up, raise, higher, more
decrease: down, lower, less, reduce
left: port side, left-hand
right: starboard, right-hand
top: upper, above, upstairs
bottom: lower, underneath, below
front: main, forward
back: rear, behind
inbound: incoming, arriving, arrivals, coming in
outbound: outgoing, leaving, departing, departures, going out
returns: returned, sent back, coming back
north: northern, northward
south: southern, southward
east: eastern, eastward
west: western, westward
duplicate: double, twice, copy, again
changed mind: don't want it, no longer wanted, no longer needed, not needed any more, change of heart, does not like, didn't like
apology: sorry, say sorry, apologise, apologize, excuse
reminder: remind, has not paid, not paid yet, overdue, dunning
weather: snow, storm, fog, ice, wind, rain, thunderstorm, hail
technical: broken, defect, fault, engine, malfunction, repair
crew: staff, pilots, cabin
all: everyone, everybody, everywhere, whole
complaint: complains, complaining, unhappy, angry, dissatisfied, grievance
none: nothing, no one
wrong item: not what, something else, mixed up, wrong one
defective: broken, faulty, doesn't work, does not work, not working, malfunction, defect, dead
fraud: fraudulent, scam, fake, stolen
illness: ill, sick, unwell, poorly, flu, fever
vacation: holiday, leave, holidays, time off
training: course, courses, class, seminar, workshop, learning
travel: trip, train ticket, taxi, flight, journey, hotel
equipment: keyboard, monitor, hardware, device, devices, gear, laptop, screen
noon: midday, lunch, lunchtime
vegetarian: no meat, meatless, veggie
vegan: plant-based, no animal products
gluten_free: no gluten, coeliac, celiac, without gluten
rinse: rinsing
fast: quick, rapid, swift, speedy, high speed
slow: gentle, leisurely, low speed, slowly, careful
heating: heat, warm
cooling: cool, chill, cold
stop: halt, standstill
safe: secure, careful
strict: tight, tough
""".strip()


@lru_cache(maxsize=1)
def _by_phrase() -> dict[str, frozenset[str]]:
    heads: dict[str, set[str]] = {}
    for line in _GROUPS.splitlines():
        head, _, rest = line.partition(":")
        for phrase in (head, *rest.split(",")):
            heads.setdefault(phrase.strip().lower(), set()).add(head.strip().replace("_", " "))
    return {phrase: frozenset(names) for phrase, names in heads.items()}


def heads_of(phrase: str) -> frozenset[str]:
    """What options a word or short phrase (lower case) stands for: greasing -> {lubrication}."""
    return _by_phrase().get(phrase, frozenset())
