import type { ProcessStep } from "@merkato/domain/orders/OrderProcess"
import { type Invariant, none } from "./Invariant.ts"

/** The steps of an order process by how far it has come: an owner moves it on, never back, and never to where it is. */
const way: ReadonlyArray<ReadonlyArray<ProcessStep>> = [
  ["quote"],
  ["risk", "reserve", "hold"],
  ["release", "authorise"],
  ["confirm"],
  ["capture", "void"],
  ["done"]
]

const far = (row: string) =>
  `case ${row}.step ${way.map((steps, nth) => steps.map((step) => `when '${step}' then ${nth}`).join(" ")).join(" ")} end`

/**
 * Put into the simulator's database beside the shop's tables: writes down who went back. The rows alone do not tell it: whatever
 * is done a second time finds what it did the first time, so two owners of a process often do no harm.
 */
export const watch: ReadonlyArray<string> = [
  `create schema simulator`,
  `create table simulator.moved_back (saga_id text, epoch int, from_step text, to_step text)`,
  `create function simulator.note() returns trigger language plpgsql as $$ begin
     insert into simulator.moved_back values (new.saga_id, new.epoch, old.step, new.step);
     return null;
   end $$`,
  // To give a process back changes its deadline alone; a takeover and a new beginning are a new epoch.
  `create trigger watched after update on orders.sagas for each row
   when (old.epoch = new.epoch and old.updated_at <> new.updated_at and ${far("new")} <= ${far("old")})
   execute function simulator.note()`
]

export const owners: ReadonlyArray<Invariant> = [
  none(
    "no order process is moved by an owner that was replaced",
    `select saga_id, 'epoch ' || epoch, from_step || ' to ' || to_step from simulator.moved_back`
  )
]
