/**
 * From a feed to its next good copy: pull with back-off, vet every indicator, and replace the old copy only by a new
 * one that is complete and not suspicious. Whatever goes wrong, the old copy stays, and the state says what went
 * wrong.
 */
import { asMayflyError, MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { Feed, FeedState } from './feed.ts';
import { Transient } from './fetch.ts';
import { newFacts, pull } from './pull.ts';
import type { PullFacts, PullRequest } from './pull.ts';
import type { CopyWriter, FeedStore } from './store.ts';
import { summarise, vet, vetSize } from './vet.ts';
import type { Finding, Vetting } from './vet.ts';

export interface SyncOptions {
  readonly feed: Feed;
  readonly protect: readonly string[];
  readonly store: FeedStore;
  readonly token: string | undefined;
  readonly nowSeconds: number;
  readonly signal: AbortSignal;
  wait(millis: number): Promise<void>;
  /** Takes a copy that would be quarantined, without the rows that were found. */
  readonly accept: boolean;
  /** Indicators so far. */
  progress?(count: number): void;
}

export interface Synced {
  readonly name: string;
  readonly result: 'updated' | 'unchanged' | 'quarantined' | 'failed';
  readonly state: FeedState;
}

const EMPTY: FeedState = Object.freeze({
  stateVersion: 1,
  digest: '',
  file: '',
  sha256: '',
  count: 0,
  freshAt: 0,
  etag: '',
  lastModified: '',
  signedAt: 0,
  attemptedAt: 0,
  failures: 0,
  addedAfter: '',
  notes: [],
  quarantine: null,
  problem: null,
});

/** Rejects only when the state cannot be written, or interrupted. */
export async function syncFeed(options: SyncOptions): Promise<Synced> {
  const { feed, store, nowSeconds } = options;
  const known = (await store.state(feed.name)) ?? EMPTY;
  const before = { ...known, attemptedAt: nowSeconds, failures: 0 };
  const finish = async (result: Synced['result'], state: FeedState): Promise<Synced> => {
    await store.setState(feed.name, state);
    await store.tidy(feed.name, state);
    return { name: feed.name, result, state };
  };
  try {
    const pulled = await pullWithBackoff(options, before);
    if (pulled === 'unchanged')
      return await finish('unchanged', { ...before, freshAt: nowSeconds, quarantine: null, problem: null });
    const { copy, facts, findings } = pulled;
    if (copy === undefined) {
      const quarantine = { at: nowSeconds, count: pulled.count, findings };
      return await finish('quarantined', { ...before, quarantine, problem: null });
    }
    return await finish('updated', {
      stateVersion: 1,
      digest: feed.digest,
      ...copy,
      count: pulled.count,
      freshAt: nowSeconds,
      etag: facts.etag,
      lastModified: facts.lastModified,
      addedAfter: facts.addedAfter,
      signedAt: facts.signedAt,
      attemptedAt: nowSeconds,
      failures: 0,
      notes: [...facts.skipped].map(([why, times]) => `${times} × ${why}`),
      quarantine: null,
      problem: null,
    });
  } catch (thrown) {
    if (options.signal.aborted)
      throw new MayflyError('E_INTERRUPTED', 'Interrupted; the last good copies stay.', { cause: thrown });
    const { code, message } = asMayflyError(thrown);
    if (code === 'E_INTERNAL') throw thrown;
    return await finish('failed', {
      ...before, failures: known.failures + 1, problem: { at: nowSeconds, code, message },
    });
  }
}

interface Pulled {
  /** Undefined: it must not be used. */
  readonly copy: { readonly file: string; readonly sha256: string } | undefined;
  readonly count: number;
  readonly facts: PullFacts;
  readonly findings: readonly Finding[];
}

async function pullWithBackoff(options: SyncOptions, before: FeedState): Promise<Pulled | 'unchanged'> {
  for (let tried = 1; ; tried++) {
    try {
      return await pullOnce(options, before);
    } catch (thrown) {
      const cause = thrown instanceof MayflyError ? thrown.cause : undefined;
      if (!(cause instanceof Transient) || tried >= limits.intelFetchTriesMax || options.signal.aborted) throw thrown;
      await options.wait(Math.min(limits.intelBackoffMillisMax, Math.max(cause.waitMillis, 500 * 2 ** tried)));
    }
  }
}

async function pullOnce(options: SyncOptions, before: FeedState): Promise<Pulled | 'unchanged'> {
  const { feed, store, token, signal } = options;
  // A damaged copy, and one of other settings, is replaced as if there were none.
  const continued = before.digest === feed.digest && (await store.intact(feed.name, before));
  // Accepting means pulling again, so that what was looked at and what is taken are as close as they can be.
  const conditional = continued && before.quarantine === null && !options.accept;
  const request: PullRequest = {
    feed,
    token,
    signal,
    etag: conditional ? before.etag : '',
    lastModified: conditional ? before.lastModified : '',
    addedAfter: continued ? before.addedAfter : '',
  };
  const facts = newFacts(request);
  const writer = await store.write(feed.name);
  try {
    const collected = await writeCopy(options, before, writer, pull(request, facts), facts);
    if (!facts.changed) {
      await writer.abandon();
      return 'unchanged';
    }
    if (continued && facts.signedAt < before.signedAt && !options.accept)
      throw new MayflyError('E_INTEL_SIGNATURE', `feed ${feed.name}: it is older than the copy in use`);
    const findings = summarise([...collected.findings, ...vetSize(continued ? before.count : 0, collected.count)]);
    if (findings.length > 0 && !options.accept) {
      await writer.abandon();
      return { copy: undefined, count: collected.count, facts, findings };
    }
    return { copy: await writer.finish(), count: collected.count, facts, findings };
  } catch (thrown) {
    await writer.abandon().catch(() => {});
    throw thrown;
  }
}

/** The old copy without what was replaced or revoked, for a feed that sends additions; then everything new. */
async function writeCopy(
  { feed, protect, store, progress }: SyncOptions,
  before: FeedState,
  writer: CopyWriter,
  batches: ReturnType<typeof pull>,
  facts: PullFacts,
): Promise<{ count: number; findings: Finding[] }> {
  const vetting: Vetting = { protect, tolerate: new Set(feed.tolerate) };
  const findings: Finding[] = [];
  const gone = new Set<string>();
  let [count, dropped, tolerated] = [0, 0, 0];
  for await (const { indicators, revoked } of batches) {
    for (const id of revoked) gone.add(id);
    for (const indicator of indicators) {
      const finding = vet(indicator, vetting);
      if (finding !== undefined && vetting.tolerate.has(finding.kind)) tolerated += 1;
      else if (finding !== undefined) {
        if (findings.length < limits.intelFindingsKept * 10) findings.push(finding);
      } else if (count >= limits.intelIndicatorsPerFeedMax) dropped += 1;
      else {
        if (facts.incremental && indicator.id !== '') gone.add(indicator.id);
        writer.add(indicator);
        count += 1;
      }
    }
    await writer.drain();
    progress?.(count);
  }
  if (facts.incremental && facts.changed) {
    for await (const records of store.records(feed.name, before)) {
      for (const record of records.filter(({ id }) => id === '' || !gone.has(id))) {
        if (count >= limits.intelIndicatorsPerFeedMax) dropped += 1;
        else {
          writer.addRecord(record);
          count += 1;
        }
      }
      await writer.drain();
    }
  }
  if (tolerated > 0) facts.skipped.set(`rows dropped under \`tolerate\``, tolerated);
  if (dropped > 0) facts.skipped.set(`rows beyond the first ${limits.intelIndicatorsPerFeedMax}`, dropped);
  return { count, findings };
}
