/**
 * Time as a dependency. Deadlines use the monotonic clock only: a host whose wall clock jumps by a day must neither
 * kill a run nor let it live on. Wall time is for people (evidence, logs) and for the guest's clock.
 */

export interface Clock {
  /** Monotonic milliseconds with a fraction; the origin is arbitrary. */
  now(): number;
  /** Wall clock, nanoseconds since the Unix epoch. */
  wallNanos(): bigint;
  /** Calls `fire` once after `millis`; the returned function cancels it. */
  after(millis: number, fire: () => void): () => void;
}

/** To microseconds: more digits of a measured time mean nothing. */
export function millisRounded(millis: number): number {
  return Math.round(millis * 1000) / 1000;
}

/** ISO 8601 with milliseconds, for evidence and people. */
export function isoTime(wallNanos: bigint): string {
  return new Date(Number(wallNanos / 1_000_000n)).toISOString();
}

/**
 * Resolves to the work's value, or rejects with `late()` once `millis` have passed. The timer never outlives the race.
 */
export async function within<T>(clock: Clock, millis: number, work: Promise<T>, late: () => Error): Promise<T> {
  let cancel = (): void => {};
  const deadline = new Promise<never>((_resolve, reject) => {
    cancel = clock.after(millis, () => reject(late()));
  });
  try {
    return await Promise.race([work, deadline]);
  } finally {
    cancel();
  }
}
