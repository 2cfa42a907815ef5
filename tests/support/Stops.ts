import * as PgConnection from "@effect/sql-pg/PgConnection"
import { Effect, type Redacted } from "effect"

/**
 * Where a test can stop the order process of somebody: the moment in which what it did there is committed. Every row that
 * the process writes is such a place; nothing in the shop knows of it.
 */
export interface Stop {
  readonly userId: string
  readonly place: string
}

/** `before`: what was to be committed never was. `after`: it was committed, and nobody was there to hear it. */
export type Outcome = "before" | "after"

/** Any number that nobody else uses for advisory locks. */
const lockClass = 7_101

/**
 * A trigger on the tables that the process writes to. It runs as part of the commit, names the place, and waits there for
 * a lock if the test has closed it. What has passed, and whatever way was taken, is written down by the same commit.
 */
const installation = [
  `create schema stops`,
  `create table stops.closed (stop_id int primary key, user_id text not null, place text not null)`,
  `create table stops.passed (stop_id int primary key)`,
  `create table stops.trail (nth bigint generated always as identity, user_id text not null, place text not null)`,
  `create table stops.expiring (user_id text not null, place text not null)`,
  `create function stops.stop() returns trigger language plpgsql as $$
  declare
    who text;
    spot text;
    id int;
  begin
    case tg_table_name
      when 'sagas' then
        who := new.work #>> '{principal,userId}';
        spot := case
          when tg_op = 'INSERT' or old.step = 'done' and new.step <> 'done' then 'process begun at ' || new.step
          when old.step <> new.step then 'process at ' || new.step
          when old.epoch <> new.epoch then 'process taken over' end;
      when 'reservations' then
        select s.work #>> '{principal,userId}' into who from orders.sagas s
          where s.work ->> 'reservationId' = new.reservation_id limit 1;
        spot := case
          when tg_op = 'INSERT' then case new.status when 'held' then 'goods reserved' else 'goods refused' end
          -- That is the clock's doing, not the process's.
          when new.status = 'expired' then null
          when old.status <> new.status then 'goods ' || new.status
          when new.expires_at > old.expires_at then 'goods held on' end;
      when 'payments' then
        who := new.user_id;
        spot := case
          when tg_op = 'INSERT' then 'payment initiated'
          when old.status <> new.status then 'payment ' || lower(new.status)
          when old.gateway <> new.gateway then 'payment rerouted' end;
      when 'attempts' then
        select s.work #>> '{principal,userId}' into who from orders.sagas s where s.attempt_id = new.attempt_id limit 1;
        spot := case when tg_op = 'INSERT' or old.status <> new.status then 'gateway ' || new.status end;
      when 'assessments' then
        who := new.user_id;
        spot := 'risk assessed';
    end case;
    if who is null or spot is null then return null; end if;
    select stop_id into id from stops.closed c where c.user_id = who and c.place = spot;
    if id is not null then
      -- Combined statements wait for no lock for long: each command then comes again alone, and that is who stands here. Else
      -- the shop might be killed in between.
      if current_setting('lock_timeout') not in ('0', '10s') then
        raise exception 'somebody is to stop here' using errcode = 'lock_not_available';
      end if;
      -- A statement's timeout does not cover its commit; the shop is not to wait for longer than for a statement.
      perform set_config('lock_timeout', '10s', true);
      perform pg_advisory_xact_lock(${lockClass}, id);
      insert into stops.passed values (id) on conflict do nothing;
    end if;
    insert into stops.trail (user_id, place) values (who, spot);
    if exists (select from stops.expiring e where e.user_id = who and e.place = spot) then
      update inventory.reservations r set expires_at = r.created_at from orders.sagas s
      where s.work #>> '{principal,userId}' = who and r.reservation_id = s.work ->> 'reservationId' and r.status = 'held';
    end if;
    return null;
  end $$`,
  ...["orders.sagas", "inventory.reservations", "payments.payments", "psp.attempts", "risk.assessments"].map(
    (table) => `create constraint trigger stop after insert or update on ${table}
      deferrable initially deferred for each row execute function stops.stop()`
  )
]

/** Polls until it is so, for as long as a statement of the shop may wait. */
const until = async <A>(what: () => string, withinMs: number, look: () => Promise<A | undefined>): Promise<A> => {
  const deadline = Date.now() + withinMs
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (Date.now() > deadline) throw new Error(what())
    await Bun.sleep(10)
  }
}

/** Stops in the database of a shop. One connection of the test holds the locks. */
export class Stops {
  readonly #connection: PgConnection.PgConnection
  readonly #closed = new Map<number, Stop>()
  #made = 0

  private constructor(connection: PgConnection.PgConnection) {
    this.#connection = connection
  }

  /** Installs them in a database that has its tables. */
  static readonly install = Effect.fnUntraced(function* (database: Redacted.Redacted) {
    const connection = yield* PgConnection.make({ url: database, applicationName: "test-stops" })
    for (const statement of installation) yield* connection.query(statement)
    return new Stops(connection)
  })

  async #query(statement: string, params: ReadonlyArray<unknown> = []) {
    return (await Effect.runPromise(this.#connection.query(statement, params))).rows
  }

  /** Closes places: whoever comes there waits. */
  async close(stops: ReadonlyArray<Stop>): Promise<void> {
    for (const stop of stops) {
      const id = ++this.#made
      this.#closed.set(id, stop)
      await this.#query(`insert into stops.closed values ($1, $2, $3)`, [id, stop.userId, stop.place])
      await this.#query(`select pg_advisory_lock(${lockClass}, $1)`, [id])
    }
  }

  async #waiting() {
    const rows = await this.#query(
      `select objid::int as id, pid from pg_locks where locktype = 'advisory' and classid = ${lockClass} and not granted
        and database = (select oid from pg_database where datname = current_database())`
    )
    return rows.map((row) => ({ id: Number(row["id"]), pid: Number(row["pid"]) }))
  }

  /** Waits until somebody stands at each of the closed places. */
  async reached(withinMs = 20_000): Promise<void> {
    let missing: ReadonlyArray<Stop> = []
    await until(
      () => `nobody came to: ${missing.map(({ userId, place }) => `${userId} ${place}`).join(", ")}`,
      withinMs,
      async () => {
        const there = new Set((await this.#waiting()).map(({ id }) => id))
        missing = [...this.#closed].filter(([id]) => !there.has(id)).map(([, stop]) => stop)
        return missing.length === 0 ? true : undefined
      }
    )
  }

  /** Opens all places again. Whoever stands there goes on. */
  async open(): Promise<void> {
    await this.#query(`delete from stops.closed`)
    for (const id of this.#closed.keys()) await this.#query(`select pg_advisory_unlock(${lockClass}, $1)`, [id])
    this.#closed.clear()
  }

  /**
   * After the shop has died: undoes what stands at its place, or has it committed, as told; and waits until nothing of the
   * dead shop is left in the database. Fails when a place did not come out as told.
   */
  async settle(outcomeOf: (stop: Stop) => Outcome): Promise<void> {
    const closed = [...this.#closed]
    const undone = new Set(closed.filter(([, stop]) => outcomeOf(stop) === "before").map(([id]) => id))
    for (const { id, pid } of await this.#waiting()) {
      if (undone.has(id)) await this.#query(`select pg_terminate_backend($1)`, [pid])
    }
    for (const [id] of closed) {
      if (!undone.has(id)) await this.#query(`select pg_advisory_unlock(${lockClass}, $1)`, [id])
    }
    await this.abandoned()
    for (const id of undone) await this.#query(`select pg_advisory_unlock(${lockClass}, $1)`, [id])
    const passed = new Set((await this.#query(`select stop_id from stops.passed`)).map((row) => Number(row["stop_id"])))
    const wrong = closed.filter(([id]) => passed.has(id) === undone.has(id)).map(([, stop]) => stop)
    await this.#query(`delete from stops.passed`)
    await this.#query(`delete from stops.closed`)
    this.#closed.clear()
    if (wrong.length > 0) throw new Error(`not ended as told: ${JSON.stringify(wrong)}`)
  }

  /** Waits until no connection of a shop is left. */
  async abandoned(): Promise<void> {
    await until(
      () => "connections of a dead shop are left",
      15_000,
      async () => {
        const rows = await this.#query(
          `select from pg_stat_activity where datname = current_database() and application_name like 'merkato%'`
        )
        return rows.length === 0 ? true : undefined
      }
    )
  }

  /** Lets the reservation of somebody's process end as soon as that comes to a place. */
  async expireAt({ userId, place }: Stop): Promise<void> {
    await this.#query(`insert into stops.expiring values ($1, $2)`, [userId, place])
  }

  /** The places that somebody's process has come through, in their order. */
  async trail(userId: string): Promise<ReadonlyArray<string>> {
    const rows = await this.#query(`select place from stops.trail where user_id = $1 order by nth`, [userId])
    return rows.map((row) => String(row["place"]))
  }

  /** Forgets which way somebody's process has come so far. */
  async forget(userId: string): Promise<void> {
    await this.#query(`delete from stops.trail where user_id = $1`, [userId])
  }

  /** Makes everybody's process overdue, so that the next shop need not wait for the lease of the dead one. */
  async overdue(): Promise<void> {
    await this.#query(`update orders.sagas set deadline = begun_at where step <> 'done'`)
  }

  /** Lets somebody's process be so many seconds older. */
  async age(userId: string, seconds: number): Promise<void> {
    await this.#query(
      `update orders.sagas set begun_at = begun_at - make_interval(secs => $2::int)
        where work #>> '{principal,userId}' = $1`,
      [userId, seconds]
    )
  }
}
