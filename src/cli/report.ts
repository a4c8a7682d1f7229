/** How runs and errors look to people and to scripts. */
import type { AcceleratorVerdict } from '../clone/accelerator.ts';
import { errorTable } from '../core/errors.ts';
import type { MayflyError } from '../core/errors.ts';
import { millisRounded } from '../core/time.ts';
import type { TimelineEntry } from '../evidence/record.ts';
import type { Engine } from '../order.ts';
import type { Outcome } from '../stages.ts';
import type { FailedVerdict } from '../validate/verdict.ts';
import type { Paint } from './io.ts';
import { clean } from './log.ts';
import { formatBytes, formatMillis } from './units.ts';

export type Problem = Pick<MayflyError, 'code' | 'message' | 'remedy' | 'blame'> & {
  readonly detail?: string | undefined;
};

/** The code with its title, what happened, its detail, and what to do. */
export function formatProblem(problem: Problem, paint: Paint): string {
  const { code } = problem;
  // They repeat what they are about: an argument, a file's name, something that a guest said.
  const message = clean(problem.message);
  const detail = clean(problem.detail ?? '');
  const remedy = clean(problem.remedy);
  const lines = [`${paint.red(paint.bold('error'))} ${paint.bold(code)}: ${errorTable[code].title}`, `  ${message}`];
  if (detail !== '') {
    lines.push('', ...detail.split('\n').map((line) => `  ${paint.dim(line)}`), '');
  }
  lines.push(`  ${paint.cyan('remedy')} ${remedy}`);
  return `${lines.join('\n')}\n`;
}

/** One line: weaker isolation is never silent. */
export function tcgWarning({ why }: AcceleratorVerdict): string {
  return `software emulation (TCG), which QEMU gives no isolation promise: ${why}`;
}

const BAR_WIDTH = 36;
const BLOCK = '█';

/** A line per step: when it began, how long it took, and where it stands in the whole. */
export function formatTimeline(timeline: readonly TimelineEntry[], paint: Paint): string {
  const total = Math.max(1, ...timeline.map(({ at, millis }) => at + millis));
  const lines = timeline.map(({ stage, at, millis, attempt }) => {
    const from = Math.min(BAR_WIDTH - 1, Math.floor((at / total) * BAR_WIDTH));
    const width = Math.min(BAR_WIDTH - from, Math.max(1, Math.round((millis / total) * BAR_WIDTH)));
    const bar = `${' '.repeat(from)}${BLOCK.repeat(width)}`;
    const name = attempt > 1 ? `${stage} (${attempt})` : stage;
    return `  ${name.padEnd(14)} ${formatMillis(millis).padStart(9)}  ${paint.cyan(bar)}`;
  });
  return `${[...lines, `  ${'event to end'.padEnd(14)} ${formatMillis(total).padStart(9)}`].join('\n')}\n`;
}

export function formatSummary(outcome: Outcome, paint: Paint): string {
  const { usage, release, evidence, proof } = outcome;
  const lines: string[] = [];
  if (proof !== undefined) {
    const verdict = proof.differences.length === 0 ? paint.green('equal to the profile') : paint.red('different');
    lines.push(`  proof          ${proof.facts.length} facts read inside the clone, ${verdict}`);
  }
  if (usage !== undefined) {
    const cpu = formatMillis(usage.cpuMicros / 1000);
    lines.push(`  used           ${cpu} CPU, ${formatBytes(usage.memoryPeakBytes)} peak memory`);
  }
  const left = `left: ${release.left.join(', ')}`;
  const released = release.verified ? paint.green('verified: nothing left') : paint.red(left);
  lines.push(`  released       ${released}`);
  if (evidence !== undefined) {
    lines.push(`  evidence       record ${evidence.record.sequence}, ${evidence.hash.slice(0, 23)}…`);
  }
  return `${lines.join('\n')}\n`;
}

/** What `run --json` prints: one object on one line, also for failures. */
export function jsonOutcome(outcome: Outcome, { engine, raw }: JsonOptions): string {
  const { verdict, runId, timeline, attempts, release, evidence, profile, proof, truncated, state, usage } = outcome;
  const output = verdict.kind === 'accepted' ? (outcome.output ?? Buffer.alloc(0)) : undefined;
  const answer = {
    ok: output !== undefined,
    runId,
    state,
    ...(verdict.kind === 'accepted' ? {} : { error: jsonProblem(verdict) }),
    ...(output !== undefined && raw ? { outputBase64: output.toString('base64') } : {}),
    isolation: engine?.vmm.isolation ?? null,
    profile: profile === undefined ? null : { digest: profile.digest, ...profile.profile, reasons: profile.reasons },
    code: evidence?.record.code ?? null,
    proof: proof ?? null,
    usage: usage ?? null,
    network: outcome.network ?? null,
    truncated,
    timeline: timeline.map((entry) => ({ ...entry, at: millisRounded(entry.at), millis: millisRounded(entry.millis) })),
    attempts,
    release,
    snapshot: outcome.snapshot ?? null,
    evidence: evidence === undefined ? null : { sequence: evidence.record.sequence, hash: evidence.hash },
  };
  const text = JSON.stringify(answer);
  if (output === undefined || raw) return text;
  // Verbatim: parsed and printed again, numbers beyond a double's precision would change. One line: JSON needs no
  // breaks.
  return `${text.slice(0, -1)},"output":${output.toString('utf8').replace(/[\r\n]/g, ' ')}}`;
}

export interface JsonOptions {
  readonly engine: Engine | undefined;
  /** The output is any bytes. */
  readonly raw: boolean;
}

/** JSON with line breaks and indentation, its numbers as they were written. Throws SyntaxError. */
export function prettyJson(text: string): string {
  return JSON.stringify(JSON.parse(text, keepNumber as (key: string, value: unknown) => unknown), null, 2);
}

/** ECMA-262, "JSON.parse source text access": the type library does not have it yet. */
function keepNumber(_key: string, value: unknown, context?: { readonly source: string }): unknown {
  return typeof value === 'number' && context !== undefined ? exactJson.rawJSON(context.source) : value;
}

const exactJson = JSON as unknown as { rawJSON(source: string): unknown };

export function jsonProblem(problem: Problem | FailedVerdict): Record<string, unknown> {
  const { code, blame, message, remedy, detail } = problem;
  return { code, blame, message, remedy, ...(detail === undefined ? {} : { detail }) };
}
