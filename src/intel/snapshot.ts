/**
 * What is known about the world at one moment: an index over the good copies of all feeds, and how each feed is. A
 * snapshot never changes. The next one is built beside the one in use, in a thread of its own when it is large
 * (snapshot-thread.ts), and then replaces it by one assignment: whoever assesses an event meanwhile keeps the one that
 * it began with, and waits for nothing.
 */
import type { Feed, FeedHealth, FeedsConfig, FeedState } from './feed.ts';
import { healthOf } from './feed.ts';
import { IndexBuilder, IndicatorIndex } from './index.ts';
import type { IndexParts } from './index.ts';
import type { FeedStore } from './store.ts';

export interface FeedStatus {
  readonly name: string;
  readonly health: FeedHealth;
  /** Indicators of it that are in use. */
  readonly count: number;
  /** Seconds since the epoch, 0: never. */
  readonly freshAt: number;
  /** Factor of what it says, 0 to 100. */
  readonly reliability: number;
  /** What it lists may not be connected to. */
  readonly denies: boolean;
  /** Why it is not fresh, and what was left out of it. */
  readonly notes: readonly string[];
}

export interface IntelSnapshot {
  readonly index: IndicatorIndex;
  /** A source of the index is a number into this list. */
  readonly feeds: readonly FeedStatus[];
}

export interface BuildOptions {
  readonly config: FeedsConfig;
  readonly store: FeedStore;
  readonly nowSeconds: number;
  /** 32 bits that nobody else knows. */
  readonly seed: number;
}

/** A snapshot that can go from thread to thread. */
export interface SnapshotParts {
  readonly parts: IndexParts;
  readonly feeds: readonly FeedStatus[];
}

export function snapshotOf({ parts, feeds }: SnapshotParts): IntelSnapshot {
  return { index: new IndicatorIndex(parts), feeds };
}

export async function buildParts({ config, store, nowSeconds, seed }: BuildOptions): Promise<SnapshotParts> {
  const states = await Promise.all(config.feeds.map(async ({ name }) => await store.state(name)));
  const builder = new IndexBuilder(
    seed,
    states.reduce((sum, state) => sum + (state?.count ?? 0), 0),
  );
  const feeds: FeedStatus[] = [];
  for (const [source, feed] of config.feeds.entries()) {
    const state = states[source];
    const status = statusOf(feed, state, nowSeconds);
    const notes = [...status.notes];
    let { health } = status;
    try {
      if (state !== undefined && state.file !== '') {
        for await (const records of store.records(feed.name, state)) {
          for (const record of records) builder.add(source, record);
        }
      }
    } catch (thrown) {
      // What could be read stays in the index: an indicator too many only makes a profile stricter.
      health = 'failing';
      notes.push(`its copy is damaged: ${(thrown as Error).message}`);
    }
    feeds.push({ ...status, health, notes });
  }
  const parts = builder.parts();
  if (parts.dropped > 0 && feeds[0] !== undefined) {
    const note = `the index is full: ${parts.dropped} indicators of all feeds are not in it`;
    return { parts, feeds: feeds.map((feed) => ({ ...feed, health: 'failing', notes: [...feed.notes, note] })) };
  }
  return { parts, feeds };
}

/** How the feeds are, without what they say. */
export async function feedStates({ config, store, nowSeconds }: Omit<BuildOptions, 'seed'>): Promise<FeedStatus[]> {
  return await Promise.all(config.feeds.map(async (feed) => statusOf(feed, await store.state(feed.name), nowSeconds)));
}

function statusOf(feed: Feed, state: FeedState | undefined, nowSeconds: number): FeedStatus {
  return {
    name: feed.name,
    health: healthOf(state, feed.maxAgeSeconds, nowSeconds),
    count: state?.count ?? 0,
    freshAt: state?.freshAt ?? 0,
    reliability: feed.reliability,
    denies: feed.denies,
    notes: notesOf(feed, state, nowSeconds),
  };
}

function notesOf(feed: Feed, state: FeedState | undefined, nowSeconds: number): string[] {
  if (state === undefined) return ['never pulled'];
  const age = Math.floor((nowSeconds - state.freshAt) / 3600);
  return [
    ...(state.freshAt > 0 && nowSeconds - state.freshAt > feed.maxAgeSeconds ? [`its copy is ${age} hours old`] : []),
    ...(state.quarantine === null ? [] : state.quarantine.findings.map(({ text }) => `quarantined: ${text}`)),
    ...(state.problem === null ? [] : [`${state.problem.code}: ${state.problem.message}`]),
    ...(state.digest === feed.digest || state.file === '' ? [] : ['its copy was pulled under other settings']),
    ...state.notes,
  ];
}
