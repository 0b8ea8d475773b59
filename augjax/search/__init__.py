"""Searches: a population that learns its policy, and the best magnitude in few runs.

`wanted` says what is searched; what the host decides are pure functions (pba, magnitude);
`generations` trains in between.
"""

from augjax.search.curves import plot_schedule as plot_schedule
from augjax.search.generations import run as run
from augjax.search.magnitude import (
    best as best, next_magnitudes as next_magnitudes, Replayed as Replayed, replayed as replayed,
    runs_saved as runs_saved,
)
from augjax.search.pba import (
    check_population as check_population, decide as decide, Decision as Decision,
    Exploit as Exploit, exploit as exploit, explore as explore, from_json as from_json,
    knobs as knobs, Policy as Policy, schedule_of_lineage as schedule_of_lineage,
    start_policies as start_policies, to_json as to_json, winner as winner,
)
from augjax.search.wanted import (
    check_search as check_search, checked_fields as checked_fields, Search as Search,
)
