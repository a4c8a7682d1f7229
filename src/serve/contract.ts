/** What the service needs of the rest of Mayfly: somebody who runs an event, and clones that wait. */
import type { RunId } from '../core/ids.ts';
import type { FunctionVersion } from '../function/version.ts';
import type { SealedProfile } from '../profile/profile.ts';
import type { Outcome, RunObserver } from '../stages.ts';
import type { EventOrigin } from './store/event.ts';

export interface RunnerOrder {
  readonly tenant: string;
  readonly version: FunctionVersion;
  readonly origin: EventOrigin;
  /** CloudEvent, UTF-8 JSON. */
  readonly event: Buffer;
  /** Known before there is a run, so that the store can say which run an event is in. */
  readonly runId: RunId;
  readonly signal: AbortSignal;
}

export interface Runner {
  readonly isolation: string;
  /** Rejects only when the event was not accepted or nothing can run here. */
  run(order: RunnerOrder, observer: RunObserver): Promise<Outcome>;
  /** The profile that an event without anything remarkable gets. */
  expect(version: FunctionVersion, tenant: string): Promise<SealedProfile>;
  /** From now on so many clones wait for this profile and function. */
  keep(version: FunctionVersion, profile: SealedProfile, target: number): void;
  /** Clones that wait too long go, and missing ones are made. */
  look(): void;
  /** Clones that wait. */
  readonly waiting: number;
  /** Whether the next clone may be made: running events have the processors first. */
  mayFill: () => boolean;
  /** Rejects with E_RELEASE_INCOMPLETE. */
  close(): Promise<void>;
}

/** Structured lines: ids and codes, never what a caller or a guest has written. */
export interface Log {
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
}
