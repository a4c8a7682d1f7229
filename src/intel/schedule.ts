/**
 * When a feed is pulled next. A feed that fails is asked again soon, then ever less often: its server has enough
 * trouble, and the last good copy stays. Pure.
 */
import { limits } from '../core/limits.ts';
import type { Feed, FeedState } from './feed.ts';

/** Seconds since the epoch; 0: at once. */
export function dueAt({ everySeconds, digest }: Feed, state: FeedState | undefined): number {
  if (state === undefined || state.attemptedAt === 0) return 0;
  // Other settings are another feed.
  if (state.digest !== '' && state.digest !== digest && state.failures === 0) return 0;
  return state.attemptedAt + (state.failures === 0 ? everySeconds : backoff(everySeconds, state.failures));
}

function backoff(everySeconds: number, failures: number): number {
  const longest = Math.max(everySeconds, limits.intelRetrySecondsMax);
  return Math.min(longest, limits.intelRetrySecondsMin * 2 ** Math.min(failures - 1, 20));
}
