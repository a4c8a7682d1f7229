/**
 * Runs a kept event again: the same event, code and image under the same profile, or under the one that it would get
 * today, and says what came out differently.
 */
import type { App } from './app.ts';
import type { AppObserver, RunOrder } from './order.ts';
import { MayflyError } from './core/errors.ts';
import { isObject } from './core/json.ts';
import type { EgressReport } from './egress/report.ts';
import type { FunctionEntry, Workload } from './event/workload.ts';
import type { EvidenceRecord } from './evidence/record.ts';
import { evidenceRecords } from './evidence/read.ts';
import type { Details } from './forensics/open.ts';
import type { SealedProfile } from './profile/profile.ts';
import type { Outcome } from './stages.ts';

export interface ReplayOptions extends Pick<RunOrder, 'accelerator' | 'policy' | 'signal'> {
  /** `same`: that of the record. `new`: decided again, by the rules in `policy`. */
  readonly profile: 'same' | 'new';
}

export interface Difference {
  readonly what: string;
  readonly before: string;
  readonly now: string;
}

export interface Replayed {
  readonly outcome: Outcome;
  /** None: it did the same again. */
  readonly differences: readonly Difference[];
}

/** Rejects as a run does, and with E_FORENSICS_UNKNOWN: only a kept run has its event and its code. */
export async function replayRun(
  app: App,
  runId: string,
  options: ReplayOptions,
  observer: AppObserver = {},
): Promise<Replayed> {
  const details = await (await app.forensics()).details(runId);
  const record = await recordOf(app, runId);
  const profile = details['profile'] as Pick<SealedProfile, 'digest' | 'reasons'> & {
    readonly content: SealedProfile['profile'];
  };
  const { image } = profile.content;
  const { accelerator, policy, signal } = options;
  const order: RunOrder = {
    image: image.name,
    language: null,
    workload: workloadOf(details),
    event: Buffer.from(String(details['event']), 'base64'),
    limits: isObject(details['limits']) ? details['limits'] : {},
    accelerator,
    network: profile.content.network,
    keep: false,
    ...(policy === undefined ? {} : { policy }),
    ...(signal === undefined ? {} : { signal }),
    ...(options.profile === 'new' ? {} : {
      profile: { digest: profile.digest, profile: profile.content, reasons: profile.reasons },
    }),
  };
  const outcome = await app.run(order, observer);
  return { outcome, differences: compare(record, details, outcome) };
}

async function recordOf(app: App, runId: string): Promise<EvidenceRecord> {
  const { disk, folder } = await app.evidence();
  for await (const { record } of evidenceRecords({ disk, folder })) if (record.runId === runId) return record;
  throw new MayflyError('E_USAGE', `there is no evidence of run ${runId}`);
}

function workloadOf(details: Details): Workload {
  const stored = details['workload'] as { entries: unknown[] | null; env: [string, string][] };
  if (stored.entries === null) {
    throw new MayflyError('E_USAGE', 'the code of this run was too large to be kept', {
      remedy: 'Run the event again with `mayfly run`; its digest is in the evidence.',
    });
  }
  const entries = stored.entries.map((entry) => {
    const { kind, content } = entry as { kind: string; content?: string };
    return kind === 'file' ? { ...(entry as object), content: Buffer.from(String(content), 'base64') } : entry;
  }) as FunctionEntry[];
  const { env, ...rest } = stored;
  return { ...rest, entries, ...(env.length === 0 ? {} : { env: new Map(env) }) } as unknown as Workload;
}

function compare(record: EvidenceRecord, details: Details, outcome: Outcome): Difference[] {
  const now = outcome.evidence?.record;
  const verdict = (it: EvidenceRecord['verdict'] | undefined): string =>
    it === undefined ? 'none' : it.kind === 'accepted' ? 'accepted' : `${it.kind} ${it.code}`;
  const pairs: [what: string, before: string, now: string][] = [
    ['event', record.event.digest, now?.event.digest ?? 'none'],
    ['code', record.code?.digest ?? 'none', now?.code?.digest ?? 'none'],
    ['image', record.origin?.imageDigest ?? 'none', now?.origin?.imageDigest ?? 'none'],
    ['kernel', record.origin?.kernel ?? 'none', now?.origin?.kernel ?? 'none'],
    ['agent', record.origin?.agent ?? 'none', now?.origin?.agent ?? 'none'],
    ['monitor', record.origin?.vmm ?? 'none', now?.origin?.vmm ?? 'none'],
    ['isolation', record.origin?.isolation ?? 'none', now?.origin?.isolation ?? 'none'],
    ['profile', record.profile?.digest ?? 'none', now?.profile?.digest ?? 'none'],
    ['verdict', verdict(record.verdict), verdict(now?.verdict)],
    ['output', record.output?.digest ?? 'none', now?.output?.digest ?? 'none'],
    ['exit', exitOf(record.usage), exitOf(now?.usage)],
    ['connections', flowsOf(details['network'] as EgressReport | null), flowsOf(outcome.network ?? null)],
  ];
  const different = pairs.filter(([, before, after]) => before !== after);
  return different.map(([what, before, after]) => ({ what, before, now: after }));
}

function exitOf(usage: EvidenceRecord['usage'] | undefined): string {
  return usage === null || usage === undefined ? 'none' : `${usage.exitCode}, signal ${usage.signal}`;
}

function flowsOf(network: EgressReport | null): string {
  const flows = (network?.flows ?? []).map(({ name, address, port, verdict }) => {
    return `${name ?? address}:${port} ${verdict}`;
  });
  const names = (network?.queries ?? []).map(({ name, verdict }) => `${name} ${verdict}`);
  return [...flows, ...names].sort().join(', ') || 'none';
}
