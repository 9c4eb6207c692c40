"""Bugs planted on purpose: each must make a history fail, or the histories prove nothing about it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from service import batch, beginning, drain_file, group, leaving, listing, reopening, rules, view_calls
from service.admission import Admission
from service.batch import Batch
from service.beginning import Beginning, Opening
from service.cohort import Cohort
from service.dispatcher import outcome
from service.engine import Engine
from service.kept import KeptAnswers
from service.memory import NO_MEMORY, Memory
from service.once import Once
from service.queue import ChunkQueue
from service.replays import Replays
from service.repository import ServedModel
from service.results import Results
from service.rules import Rules
from service.runs import Runs
from service.scheduler import Scheduler
from service.sessions import SessionTable
from service.spill import Spilling
from service.tombstones import Tombstones
from tests import fakes
from tests.simulation.history import History

SEEDS = 300

Original = Callable[..., Any]
Bug = Callable[..., Any]
PLANTED: list[tuple[object, str, Bug]] = []


def planted(owner: object, name: str) -> Callable[[Bug], Bug]:
    """The function takes the place of another, which it is given first."""

    def plant(bug: Bug) -> Bug:
        PLANTED.append((owner, name, bug))
        return bug

    return plant


# -- commits ------------------------------------------------------------------------------------------------------


@planted(Results, "advance")
def a_state_is_committed_though_it_is_not_finite(
    original: Original, self: Results, cohort: Cohort, steps: int, outputs: Any, finite: Any
) -> None:
    original(self, cohort, steps, outputs, None)


@planted(Results, "_commit")
def callers_are_answered_before_the_commit(original: Original, self: Results, cohort: Cohort) -> None:
    cohort.answer(cohort.outputs(), self.served[cohort.model].version)
    cohort.segments, cohort.joined = [], {}
    original(self, cohort)


@planted(Results, "_keep")
def answers_are_not_kept(original: Original, *_: object) -> None:
    pass


@planted(Results, "_commit")
def the_index_moves_and_the_row_does_not(original: Original, self: Results, cohort: Cohort) -> None:
    slots, rows = cohort.slots, self.table.row[cohort.slots]
    original(self, cohort)
    self.table.row[slots] = rows


@planted(Results, "_commit")
def the_row_moves_and_the_index_does_not(original: Original, self: Results, cohort: Cohort) -> None:
    slots, steps = cohort.slots, self.table.next_index[cohort.slots]
    original(self, cohort)
    self.table.next_index[slots] = steps


@planted(Results, "_commit")
def a_row_is_given_back_twice(original: Original, self: Results, cohort: Cohort) -> None:
    self.served[cohort.model].give(self.table.row[cohort.slots])
    original(self, cohort)


@planted(Engine, "admit_offered")
def a_successor_starts_before_its_predecessor_has_committed(original: Original, self: Engine) -> None:
    before = {cohort.number for cohort in self.queue}
    original(self)
    for cohort in self.queue:
        if cohort.number not in before and cohort.predecessor is not None:
            self._scheduler.add(cohort)


@planted(Batch, "run")
def a_later_run_of_a_long_chunk_begins_with_the_state_before_it(
    original: Original, self: Batch, table: SessionTable, *more: bool
) -> Any:
    rows = np.concatenate([table.row[cohort.slots] for cohort in self.cohorts])
    return replace(original(self, table, *more), read_rows=rows)


@planted(Results, "_refuse_later")
def nobody_is_told_that_an_earlier_chunk_failed(original: Original, *_: object) -> None:
    pass


@planted(Results, "fail")
def a_run_that_fails_for_one_fails_for_its_mates(
    original: Original, self: Results, cohort: Cohort, members: Any, error: Any
) -> None:
    stay = [member for member in range(len(cohort)) if not cohort.is_dropped(member)]
    original(self, cohort, stay, error)


@planted(Results, "advance")
def a_run_is_applied_to_whoever_has_the_place_of_its_session(
    original: Original, self: Results, cohort: Cohort, *result: object
) -> None:
    cohort.serials = self.table.serial[cohort.slots]
    original(self, cohort, *result)


@planted(Scheduler, "add")
def the_rest_of_a_long_chunk_is_forgotten(original: Original, self: Scheduler, cohort: Cohort) -> None:
    if not cohort.done:
        original(self, cohort)


@planted(ChunkQueue, "abandon")
def what_was_promised_is_not_taken_back(
    original: Original, self: ChunkQueue, cohort: Cohort, member: int
) -> None:
    promised = self.promised_bytes
    original(self, cohort, member)
    self.promised_bytes = promised


# -- admission ----------------------------------------------------------------------------------------------------


@planted(Rules, "decide")
def a_queued_chunk_sent_again_is_queued_as_new(
    original: Original, self: Rules, model: int, columns: Any, position: int, now: float
) -> Any:
    slot = int(columns.slots[position])
    for cohort, member in self._queue.chain(slot):
        if cohort.is_numbered(member) and cohort.firsts[member] == columns.firsts[position]:
            columns.firsts[position] = self._table.tail[slot]
            break
    return original(self, model, columns, position, now)


@planted(ChunkQueue, "chain")
def a_queued_chunk_is_not_found_again(original: Original, self: ChunkQueue, slot: int) -> Any:
    return original(self, slot)[-1:]


@planted(rules, "_check_same")
def contents_are_not_compared(original: Original, *_: object) -> None:
    pass


@planted(KeptAnswers, "release")
def an_acknowledgement_forgets_one_step_too_many(
    original: Original, self: KeptAnswers, model: int, slots: Any, acknowledged: Any
) -> Any:
    return original(self, model, slots, np.minimum(acknowledged, 1 << 60) + 1)


@planted(Rules, "room_for")
def the_queue_has_no_end(original: Original, *_: object) -> bool:
    return True


@planted(Engine, "admit_offered")
def a_chunk_reaches_whoever_has_the_place_of_its_session(original: Original, self: Engine) -> None:
    for offered in self._groups.values():
        offered.serials = [int(self.table.serial[slot]) for slot in offered.slots]
    original(self)


@planted(Cohort, "is_numbered")
def steps_without_a_number_can_be_asked_for_again(original: Original, *_: object) -> bool:
    return True


@planted(Admission, "_fits")
def windows_have_no_end(original: Original, self: Admission, slots: Any, sizes: Any) -> Any:
    return np.ones(len(slots), np.bool_)


@planted(group, "digests_of")
def contents_are_told_apart_by_their_first_step(original: Original, blobs: Any, lengths: Any) -> Any:
    starts = np.cumsum([0, *lengths[:-1]])
    firsts = [np.frombuffer(blob, "<f4")[starts].tobytes() for blob in blobs]
    return original(firsts, [1] * len(lengths))


@planted(Engine, "admit_offered")
def chunks_of_a_caller_that_has_left_are_taken_in(original: Original, self: Engine) -> None:
    callers = [caller for one in self._groups.values() for caller, _ in one.callers if caller.left]
    for caller in callers:
        caller.left = False
    original(self)
    for caller in callers:
        caller.left = True


# -- runs that follow at once -------------------------------------------------------------------------------------


@planted(batch, "_before")
def a_run_that_follows_at_once_reads_the_row_before(original: Original, cohort: Cohort, table: Any) -> Any:
    return table.row[cohort.slots]


@planted(Cohort, "rows_of")
def a_run_that_follows_at_once_reads_rows_in_another_order(
    original: Original, self: Cohort, slots: Any
) -> Any:
    return self.rows[: len(slots)]


@planted(Batch, "end")
def a_run_follows_before_the_chunk_before_it_is_at_its_end(original: Original, self: Batch) -> Any:
    original(self)
    for cohort in self.cohorts:
        cohort.ending = True
    return [later for cohort in self.cohorts for later in cohort.successors]


@planted(Results, "_weed")
def a_chunk_is_committed_though_the_one_before_it_failed_meanwhile(
    original: Original, self: Results, cohort: Cohort, *rest: Any
) -> None:
    cohort.dropped = None
    original(self, cohort, *rest)


@planted(Results, "advance")
def rows_of_chunks_that_fail_while_they_run_are_lost(
    original: Original, self: Results, cohort: Cohort, steps: int, outputs: Any, finite: Any
) -> None:
    if cohort.dropped is None:
        original(self, cohort, steps, outputs, finite)
    elif not cohort.dropped.all():
        stay = ~cohort.dropped
        cohort.shrink()
        some = tuple(output[stay] for output in outputs)
        original(self, cohort, steps, some, None if finite is None else finite[stay])


# -- callers ------------------------------------------------------------------------------------------------------


@planted(Cohort, "answer")
def whoever_joined_is_not_told(original: Original, self: Cohort, *answer: Any) -> None:
    self.joined = {}
    original(self, *answer)


@planted(Cohort, "waiters")
def a_chunk_is_dropped_though_somebody_joined_it(original: Original, self: Cohort, member: int) -> Any:
    joined, self.joined = self.joined, {}
    waiters = list(original(self, member))
    self.joined = joined
    return iter(waiters)


@planted(Engine, "leave")
def a_running_chunk_is_dropped(original: Original, self: Engine, caller: Any) -> None:
    started = [cohort for cohort in caller.waits if cohort.started]
    for cohort in started:
        cohort.started = False
    original(self, caller)
    for cohort in started:
        cohort.started = True


@planted(Engine, "leave")
def what_nobody_waits_for_is_run(original: Original, self: Engine, caller: Any) -> None:
    caller.left = True


@planted(Cohort, "shrink")
def answers_go_to_the_neighbours_of_a_dropped_chunk(original: Original, self: Cohort) -> None:
    segments = self.segments
    original(self)
    self.segments = segments


# -- sessions -----------------------------------------------------------------------------------------------------


@planted(SessionTable, "overdue")
def sessions_expire_with_chunks_in_the_queue(original: Original, self: SessionTable, now: float) -> Any:
    jobs = self.job.copy()
    self.job[:] = 0
    found = original(self, now)
    self.job[:] = jobs
    return found


@planted(ServedModel, "give")
def the_place_of_a_spilled_session_is_lost_when_it_ends(
    original: Original, self: ServedModel, rows: Any
) -> None:
    original(self, rows[rows >= 0])


@planted(Replays, "find")
def a_repeated_call_is_made_again(original: Original, *_: object) -> None:
    pass


@planted(fakes, "take_over")
def a_session_that_asked_for_its_version_is_taken_over(original: Original, engine: Engine, model: Any) -> Any:
    pinned, engine.table.pinned = engine.table.pinned, np.zeros_like(engine.table.pinned)
    taken = original(engine, model)
    engine.table.pinned = pinned
    return taken


# -- states that move from one session to another -----------------------------------------------------------------


@planted(Opening, "apply")
def a_copy_shares_the_row_of_its_session(original: Original, self: Opening, result: None) -> Any:
    if isinstance(self.beginning.state, partial):
        self.undo()
        self.rows[:] = self.beginning.state.args[1]
    return original(self, result)


@planted(beginning, "write")
def copies_begin_with_whatever_is_in_their_rows(original: Original, *_: Any) -> None:
    pass


@planted(Opening, "apply")
def a_copy_begins_at_index_0(original: Original, self: Opening, result: None) -> Any:
    self.beginning = self.beginning._replace(next_index=0)
    return original(self, result)


@planted(Beginning, "_replace")
def a_restored_session_keeps_its_index(original: Original, self: Beginning, **changes: Any) -> Any:
    changes.pop("next_index")
    return original(self, **changes)


@planted(Engine, "errand")
def rows_are_looked_up_while_a_run_is_under_way(
    original: Original, self: Engine, start: Any, done: Any
) -> None:
    job = outcome(start)
    original(self, start if isinstance(job, Exception) else lambda: job, done)


@planted(Opening, "undo")
def rows_are_lost_when_sessions_cannot_be_opened(original: Original, self: Opening) -> None:
    pass


@planted(SessionTable, "check_new")
def a_copy_takes_the_id_of_another_session(original: Original, *_: object) -> None:
    pass


@planted(Once, "call")
def a_call_that_is_repeated_while_it_is_under_way_is_made_twice(
    original: Original, self: Once[Any], request: Any, *how: Any
) -> Any:
    if any(request_id == request.request_id for _, request_id in self._under_way):
        again = type(request)()
        again.CopyFrom(request)
        again.request_id += " again"
        request = again
    return original(self, request, *how)


@planted(asyncio, "shield")
def a_call_ends_with_its_caller(original: Original, task: Any) -> Any:
    return task


@planted(SessionTable, "adopt")
def a_restart_forgets_the_order_of_opening(
    original: Original, self: SessionTable, names: Any, model: int, serials: Any = None
) -> Any:
    return original(self, names, model)


@planted(listing, "_some")
def a_session_is_listed_once_more_on_the_next_page(
    original: Original, table: Any, wanted: Any, models: Any, part: Any, between: Any
) -> Any:
    return original(table, wanted, models, part, (max(0, between[0] - 1), between[1]))


# -- rows that leave ----------------------------------------------------------------------------------------------


@planted(Runs, "start")
def the_place_of_a_row_in_the_file_is_free_while_it_is_read(
    original: Original, self: Runs, batch: Batch
) -> Any:
    rows = np.concatenate([self._results.table.row[cohort.slots] for cohort in batch.cohorts])
    self._results.served[batch.model].give(rows[rows < 0])
    return original(self, batch)


@planted(Spilling, "moved")
def a_row_leaves_though_its_session_has_ended(
    original: Original, self: Spilling, move: Any, failed: Any, now: float
) -> None:
    original(self, move._replace(serials=self._table.serial[move.slots]), failed, now)


@planted(Spilling, "moved")
def a_row_leaves_though_it_could_not_be_written(
    original: Original, self: Spilling, move: Any, failed: Any, now: float
) -> None:
    original(self, move, None, now)


@planted(Engine, "_turn_away")
def rows_are_taken_that_are_not_there(original: Original, *_: object) -> bool:
    return False


# -- planes that are only read ------------------------------------------------------------------------------------


@planted(Memory, "give")
def a_plane_is_free_when_the_first_that_shares_it_ends(
    original: Original, self: Memory, row: int, sessions: int = 1
) -> None:
    original(self, row, int(self._sharers[row]))


@planted(Memory, "share")
def nobody_counts_who_shares_a_plane(original: Original, *_: object) -> None:
    pass


@planted(ServedModel, "leave")
def a_plane_is_lost_when_its_session_ends(original: Original, self: ServedModel, row: Any, _: int) -> None:
    self.give(row)


@planted(Opening, "undo")
def a_plane_is_lost_when_its_session_cannot_be_opened(original: Original, self: Opening) -> None:
    self.memory = None
    original(self)


@planted(Opening, "apply")
def a_copy_reads_the_plane_of_nobody(original: Original, self: Opening, result: None) -> Any:
    memory, self.memory = self.memory, None
    begun = original(self, result)
    if memory is not None:
        self.engine.table.memory[begun.slots] = NO_MEMORY
    return begun


@planted(Beginning, "_replace")
def a_restored_session_keeps_its_plane(original: Original, self: Beginning, **changes: Any) -> Any:
    return original(self, **changes | {"memory": self.memory})


@planted(Batch, "_memory")
def a_session_reads_the_plane_of_its_neighbour(original: Original, *run: Any) -> Any:
    return np.roll(original(*run), 1)


@planted(Memory, "take")
def a_restart_forgets_who_shares_a_plane(original: Original, self: Memory, sharers: Any) -> Any:
    return original(self, np.minimum(sharers, 1))


@planted(Memory, "write")
def planes_come_back_in_another_order(original: Original, self: Memory, rows: Any, planes: Any) -> None:
    original(self, rows, tuple(plane[::-1] for plane in planes))


@planted(view_calls, "read_planes")
def a_snapshot_holds_the_plane_of_another_session(
    original: Original, model: ServedModel, row: int, memory: int
) -> Any:
    return original(model, row, NO_MEMORY)


# -- restarts -----------------------------------------------------------------------------------------------------


@planted(Engine, "drain")
def a_server_says_that_it_is_drained_while_it_works(original: Original, self: Engine, done: Any) -> None:
    done()
    original(self, lambda: None)


@planted(Rules, "check_open")
def a_server_that_drains_takes_new_sessions(original: Original, *_: object) -> None:
    pass


@planted(drain_file, "forget")
def the_file_of_a_drained_server_is_read_twice(original: Original, *_: object) -> None:
    pass


@planted(leaving, "_states")
async def states_are_saved_in_another_order(original: Original, model: Any, rows: Any, run: Any) -> Any:
    return await original(model, rows[::-1], run)


@planted(leaving, "_states")
async def spilled_states_are_read_from_memory(original: Original, model: Any, rows: Any, run: Any) -> Any:
    return await original(model, np.abs(rows), run)


@planted(leaving, "_columns")
def chunks_in_the_queue_count_as_made(
    original: Original, engine: Engine, model: Any, slots: Any, now: float
) -> Any:
    return original(engine, model, slots, now) | {"next_index": engine.table.tail[slots]}


@planted(leaving, "_columns")
def a_restart_makes_sessions_young_again(
    original: Original, engine: Engine, model: Any, slots: Any, now: float
) -> Any:
    return original(engine, model, slots, now) | {"idle_us": np.zeros(len(slots), np.int64)}


@planted(reopening, "_is")
def states_of_another_model_are_taken_over(original: Original, *_: object) -> bool:
    return True


@planted(KeptAnswers, "dump")
def answers_are_kept_without_their_digests(original: Original, self: KeptAnswers, *which: object) -> Any:
    dump = original(self, *which)
    return dump._replace(digests=np.zeros_like(dump.digests))


@planted(KeptAnswers, "dump")
def an_answer_is_lost_in_a_restart(original: Original, self: KeptAnswers, model: int, slots: Any) -> Any:
    dump = original(self, model, slots)
    stay = np.arange(len(dump.member)) > 0
    steps = int(dump.lengths[:1].sum())
    columns = [column[stay] for column in dump[:-1]]
    return type(dump)(*columns, [output[steps:] for output in dump.outputs])


@planted(Tombstones, "dump")
def a_restart_forgets_what_became_of_sessions(original: Original, *_: object) -> Any:
    return []


@planted(Replays, "dump")
def a_restart_forgets_what_was_opened(original: Original, *_: object) -> Any:
    return []


def first_failure() -> int:
    """The first seed whose history does not end well; a bug that does not fit into its place proves nothing."""
    for seed in range(SEEDS):
        try:
            History(seed).run()
        except (TypeError, AttributeError):
            raise
        except Exception:
            return seed
    raise AssertionError("no history finds it")


@pytest.mark.parametrize(("owner", "name", "bug"), PLANTED, ids=[bug.__name__ for *_, bug in PLANTED])
def test_a_planted_bug_makes_a_history_fail_that_ends_well_without_it(
    owner: object, name: str, bug: Bug, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **named: bug(original, *args, **named))
    seed = first_failure()
    monkeypatch.undo()
    History(seed).run()
