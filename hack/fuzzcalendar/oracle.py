"""Says which dates an iCalendar file makes holidays, by Debian's python3-icalendar and python3-dateutil.

Reads a case per line from standard input, as JSON: {"ics", "zone", "from", "to"}. Answers each with a line: {"dates": [...]} or {"error": "..."}.

Where the libraries differ from RFC 5545, the RFC holds:
  - DTSTART is the first occurrence, and one that COUNT counts, whether the rule makes it or not.
  - BYWEEKNO alone takes the weekday of DTSTART; dateutil takes all seven days.
  - BYDAY=MO,-1FR means both; dateutil takes days that are a Monday and the last Friday.
  - The first days of a year can be in week 52; dateutil calls some of those 53.
  - BYSETPOS of a weekly rule counts from the start of the week; dateutil counts from DTSTART in the first week.
Ebbtide's own choice: lengths count as clocks show them, so PT24H from midnight is a day, whatever clocks do on it.
"""

import datetime as dt
import json
import re
import sys
import types
from zoneinfo import ZoneInfo

import dateutil.rrule as rr
from icalendar import Calendar

DAY = dt.timedelta(days=1)
SECOND = dt.timedelta(seconds=1)
WEEKDAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]

# A rule that never matches is searched up to the last year that there is; the cases need none of it.
rr.datetime = types.SimpleNamespace(**vars(dt))
rr.datetime.MAXYEAR = 2070


def is_date(value):
    return not isinstance(value, dt.datetime)


def at_midnight(date):
    return dt.datetime(date.year, date.month, date.day)


def instant(shown, zone):
    """The instant at which clocks show a time: the first of two; of none, that by the offset before the gap."""
    return shown.replace(tzinfo=zone, fold=0).astimezone(dt.timezone.utc)


def week(date, first):
    """The number of a date's week, in the year that has most of its days; weeks start on the weekday first."""
    middle = date - DAY * ((date.weekday() - first) % 7) + 3 * DAY
    return (middle.timetuple().tm_yday + 6) // 7, middle.year


def in_weeks(date, numbers, first):
    number, year = week(date, first)
    return number in numbers or number - week(dt.date(year, 12, 28), first)[0] - 1 in numbers


def shown(value, params, zone):
    """What a value's own clock shows, and that clock."""
    if is_date(value):
        return at_midnight(value), zone
    if params.get("TZID"):
        zone = ZoneInfo(params["TZID"])
    elif value.tzinfo is not None:
        zone = ZoneInfo("UTC")
    return value.replace(tzinfo=None), zone


def convert(at, of, to):
    """What one clock shows when another shows a time."""
    return at if of.key == to.key else instant(at, of).astimezone(to).replace(tzinfo=None)


def listed(component, name):
    found = component.get(name, [])
    return found if isinstance(found, list) else [found]


class Event:
    def __init__(self, component, own):
        if getattr(component, "errors", None):
            raise ValueError(f"icalendar did not understand {component.errors}")
        self.component = component
        start = component["DTSTART"]
        self.date = is_date(start.dt)
        self.start, self.zone = shown(start.dt, start.params, own)
        self.length = DAY if self.date else dt.timedelta()
        if "DTEND" in component:
            end = component["DTEND"]
            stop, zone = shown(end.dt, end.params, self.zone)
            length = convert(stop, zone, self.zone) - self.start
            self.length = length or self.length
        elif "DURATION" in component:
            self.length = component["DURATION"].dt or self.length
        self.cancelled = component.get("STATUS", "") == "CANCELLED"
        self.replaces = None
        if "RECURRENCE-ID" in component:
            rid = component["RECURRENCE-ID"]
            self.replaces = (rid.dt, *shown(rid.dt, rid.params, self.zone))
            self.and_future = rid.params.get("RANGE") == "THISANDFUTURE"

    def rule(self, recur, limit, counts_start):
        """The occurrences of a rule, as the event's clock shows them."""
        parts = dict(part.split("=") for part in recur.split(";"))
        count, until = int(parts.pop("COUNT", 0)), parts.pop("UNTIL", None)
        begin, weekday = self.start, WEEKDAYS[self.start.weekday()]
        if "BYWEEKNO" in parts and not {"BYDAY", "BYMONTHDAY", "BYYEARDAY", "BYEASTER"} & parts.keys():
            parts["BYDAY"] = weekday
        if parts["FREQ"] == "WEEKLY" and "BYSETPOS" in parts:
            parts.setdefault("BYDAY", weekday)
            begin -= DAY * ((begin.weekday() - WEEKDAYS.index(parts.get("WKST", "MO"))) % 7)
        weeks, first = [int(n) for n in parts.get("BYWEEKNO", "").split(",") if n], WEEKDAYS.index(parts.get("WKST", "MO"))
        days = parts.get("BYDAY", "").split(",")
        if any(len(day) > 2 for day in days):
            most = 53 if parts["FREQ"] == "YEARLY" and "BYMONTH" not in parts else 5
            parts["BYDAY"] = ",".join(day if len(day) > 2 else ",".join(f"{n}{day}" for n in range(1, most + 1)) for day in days)
        past = lambda at: False
        if until and len(until) == 8:
            past = lambda at: at.strftime("%Y%m%d") > until
        elif until and until.endswith("Z"):
            end = dt.datetime.strptime(until, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.timezone.utc)
            past = lambda at: instant(at, self.zone) > end
        elif until:
            past = lambda at: at.strftime("%Y%m%dT%H%M%S") > until
        found = []
        for at in rr.rrulestr(";".join(f"{k}={v}" for k, v in parts.items()), dtstart=begin):
            if at < self.start or weeks and not in_weeks(at, weeks, first):
                continue
            if at > limit or past(at):
                break
            if not found and counts_start and at != self.start:
                found.append(self.start)
            if count and len(found) >= count:
                break
            found.append(at)
        return found

    def occurrences(self, limit):
        """Starts and lengths, exceptions not yet left out."""
        yield self.start, self.length
        for recur in listed(self.component, "X-RRULE"):
            for at in self.rule(recur, limit, True):
                yield at, self.length
        for rdate in listed(self.component, "RDATE"):
            for entry in rdate.dts:
                value, length = entry.dt, self.length
                if isinstance(value, tuple):
                    value, end = value
                    length = end if isinstance(end, dt.timedelta) else end - value
                at, zone = shown(value, rdate.params, self.zone)
                if is_date(value) and not self.date:
                    at += self.start - at_midnight(self.start)
                elif self.date:
                    at = at_midnight(at)
                else:
                    at = convert(at, zone, self.zone)
                yield at, length

    def excluded(self, changes, limit):
        """The dates and the instants that are left out."""
        dates, instants = set(), set()

        def leave_out(value, at, zone):
            if self.date or is_date(value):
                dates.add(at.date())
            else:
                instants.add(instant(at, zone))

        for exdate in listed(self.component, "EXDATE"):
            for entry in exdate.dts:
                leave_out(entry.dt, *shown(entry.dt, exdate.params, self.zone))
        for recur in listed(self.component, "X-EXRULE"):
            for at in self.rule(recur, limit, False):
                leave_out(at.date() if self.date else at, at, self.zone)
        for change in changes:
            leave_out(*change.replaces)
        return dates, instants

    def touched(self, start, length, zone, own):
        if self.date:
            first, last = start.date(), (start + max(length, SECOND) - SECOND).date()
        else:
            begin = instant(start, zone)
            end = max(begin + SECOND, instant(start + max(length, SECOND), zone))
            first, last = begin.astimezone(own).date(), (end - SECOND).astimezone(own).date()
        while True:
            yield first
            first += DAY
            if first > last:
                return

    def dates(self, changes, limit, own):
        dates, instants = self.excluded(changes, limit)
        future = sorted((c for c in changes if c.and_future), key=lambda c: c.replaces[1])
        for at, length in self.occurrences(limit):
            if at.date() in dates or instant(at, self.zone) in instants:
                continue
            zone = self.zone
            change = next((c for c in reversed(future) if at >= convert(c.replaces[1], c.replaces[2], self.zone)), None)
            if change:
                if change.cancelled:
                    continue
                at += change.start - convert(change.replaces[1], change.replaces[2], self.zone)
                length, zone = change.length, change.zone
            yield from self.touched(at, length, zone, own)


def answer(case):
    own = ZoneInfo(case["zone"])
    first, last = dt.date.fromisoformat(case["from"]), dt.date.fromisoformat(case["to"])
    limit = at_midnight(last) + 60 * DAY
    # Rules as text: icalendar 4.0 refuses -40MO and BYEASTER.
    text = re.sub(r"^(EX|R)RULE:", r"X-\1RULE:", case["ics"], flags=re.MULTILINE)
    events = [Event(c, own) for c in Calendar.from_ical(text).walk("VEVENT")]
    changes = [e for e in events if e.replaces]
    dates = set()
    for event in events:
        if not event.cancelled:
            dates.update(event.dates([] if event.replaces else changes, limit, own))
    return sorted(d.isoformat() for d in dates if first <= d <= last)


for line in sys.stdin:
    try:
        reply = {"dates": answer(json.loads(line))}
    except Exception as e:  # one case must not end the others
        reply = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(reply), flush=True)
