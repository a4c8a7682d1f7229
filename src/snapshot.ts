/**
 * What a snapshot has beside the memory: everything that the run itself knows. It is the one place where events, code,
 * logs and withheld outputs are kept, so it is encrypted, and it expires.
 */
import type { Clone } from './clone/clone.ts';
import type { Event } from './event/event.ts';
import { codeBytes } from './event/workload.ts';
import type { Workload } from './event/workload.ts';
import type { Origin, Proof, TimelineEntry, Usage } from './evidence/record.ts';
import { captureSnapshot } from './forensics/capture.ts';
import type { CaptureOptions } from './forensics/capture.ts';
import { tenantFolder } from './forensics/manifest.ts';
import type { RecordedSnapshot } from './forensics/manifest.ts';
import { wantedBecause } from './forensics/wanted.ts';
import type { EgressReport } from './egress/report.ts';
import { limits } from './core/limits.ts';
import { isoTime } from './core/time.ts';
import type { SealedProfile } from './profile/profile.ts';
import type { RunRequest } from './stages.ts';
import type { Validation } from './validate/output.ts';
import type { Verdict } from './validate/verdict.ts';

/** A run at its end, before anything is released. */
export interface RunFacts {
  readonly request: RunRequest;
  readonly event: Event;
  readonly profile: SealedProfile | undefined;
  readonly clone: Clone | undefined;
  readonly origin: Origin;
  readonly proof: Proof | undefined;
  readonly usage: Usage | undefined;
  readonly network: EgressReport | undefined;
  readonly validation: Validation | undefined;
  readonly verdict: Verdict;
  readonly timeline: readonly TimelineEntry[];
  readonly log: { readonly stdout: Buffer; readonly stderr: Buffer };
}

/** Undefined when none is wanted. Never rejects. */
export async function takeSnapshot(options: CaptureOptions, facts: RunFacts): Promise<RecordedSnapshot | undefined> {
  const { request, event, profile, clone, verdict, network, origin } = facts;
  const because = wantedBecause({
    runId: event.runId, keep: request.keep === true, capture: profile?.profile.forensics.capture, verdict, network,
  });
  if (because === undefined) return undefined;
  if (clone === undefined || profile === undefined) return { kind: 'skipped', because, reason: 'there is no clone' };
  return await captureSnapshot(options, {
    runId: event.runId,
    tenant: tenantFolder(request.policy?.source?.tenant),
    because,
    retentionDays: profile.profile.forensics.retentionDays,
    kernel: origin.kernel,
    template: clone.template.key,
    freeze: () => clone.machine.freeze(),
    memory: clone.machine.memory(),
    details: detailsOf(facts, profile),
  });
}

function detailsOf(facts: RunFacts, profile: SealedProfile): object {
  const { request, event, proof, usage, network, validation, verdict, timeline, log, origin } = facts;
  const output = validation?.output ?? validation?.withheld;
  return {
    detailsVersion: 1,
    acceptedAt: isoTime(event.acceptedNanos),
    event: event.bytes.toString('base64'),
    eventDigest: event.digest,
    workload: workloadOf(request.workload),
    limits: request.limits,
    image: request.image,
    minimumIsolation: request.minimumIsolation,
    profile: { digest: profile.digest, content: profile.profile, reasons: profile.reasons },
    origin,
    proof: proof ?? null,
    usage: usage ?? null,
    network: network ?? null,
    verdict,
    output: output === undefined ? null : output.toString('base64'),
    timeline,
    stdout: log.stdout.toString('base64'),
    stderr: log.stderr.toString('base64'),
  };
}

/** Without its files when there are too many bytes of them: their digest is in the evidence. */
function workloadOf(workload: Workload): object {
  const { entries, env, ...rest } = workload;
  const kept = codeBytes(workload) > limits.snapshotCodeBytesMax ? null : entries.map((entry) => (
    entry.kind === 'file' ? { ...entry, content: entry.content.toString('base64') } : entry
  ));
  return { ...rest, env: [...(env ?? [])], entries: kept };
}
