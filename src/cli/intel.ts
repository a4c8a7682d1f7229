/** `mayfly intel`: pull the threat feeds, look at them, and score an event without running it. */
import type { ScoredEvent } from '../order.ts';
import { errorTable, MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { FeedHealth } from '../intel/feed.ts';
import type { Synced } from '../intel/sync.ts';
import { readFileAtMost } from './input.ts';
import { paint, printJson } from './io.ts';
import type { Io, Paint } from './io.ts';
import { clean } from './log.ts';

interface IntelCliOptions {
  readonly json?: boolean;
}

interface SyncCliOptions extends IntelCliOptions {
  readonly accept?: boolean;
  readonly due?: boolean;
  readonly watch?: boolean;
}

/** Exit code 0 when every feed is in order, else that of the first that is not. */
export async function intelSync(io: Io, names: readonly string[], options: SyncCliOptions): Promise<number> {
  const { json, accept, due, watch } = options;
  if (watch === true) return await intelWatch(io, names, options);
  if (accept === true && names.length === 0)
    throw new MayflyError('E_USAGE', '--accept needs the name of the feed to accept');
  const intel = await (await io.openApp()).intel();
  const colours = paint(io.colour);
  let [shownAt, shown] = [0, false];
  const results = await intel.sync({
    only: names,
    due: due === true,
    accept: accept === true,
    signal: io.signal,
    progress: (feed, count) => {
      if (!io.errIsTerminal || io.now() - shownAt < 200) return;
      [shownAt, shown] = [io.now(), true];
      io.err(`\r${colours.dim(`${feed}: ${count} indicators …`)}`);
    },
    done: (synced) => {
      if (shown) io.err('\r\u001b[K');
      shown = false;
      if (json !== true) io.err(describe(synced, colours));
    },
  });
  if (json === true)
    printJson(io, results.map(({ name, result, state }) => ({ name, result, ...state })));
  return results.map(exitOf).find((code) => code !== 0) ?? 0;
}

/** A line for each pull, until Ctrl-C. */
async function intelWatch(io: Io, names: readonly string[], { json, accept, due }: SyncCliOptions): Promise<number> {
  if (names.length > 0 || accept === true || due === true)
    throw new MayflyError('E_USAGE', '--watch pulls every feed in its time: it goes with no name and no --accept');
  const colours = paint(io.colour);
  await (await (await io.openApp()).intel()).watch({
    signal: io.signal,
    done: (synced) => {
      const { name, result, state } = synced;
      if (json === true) io.out(`${JSON.stringify({ name, result, ...state })}\n`);
      else io.err(describe(synced, colours));
    },
    failed: ({ code, message }) => io.err(`${colours.red('failed')}       ${code}: ${clean(message)}\n`),
  });
  return 0;
}

function exitOf({ result, state }: Synced): number {
  if (result === 'quarantined') return errorTable['E_INTEL_QUARANTINED'].exit;
  const code = state.problem?.code;
  return result === 'failed' && code !== undefined && Object.hasOwn(errorTable, code)
    ? errorTable[code as keyof typeof errorTable].exit
    : 0;
}

function describe({ name, result, state }: Synced, colours: Paint): string {
  const notes = state.notes.map((note) => `    left out: ${clean(note)}\n`).join('');
  if (result === 'updated') return `${colours.green('updated')}      ${name}: ${state.count} indicators\n${notes}`;
  if (result === 'unchanged') return `${colours.dim('unchanged')}    ${name}: ${state.count} indicators\n`;
  const kept =
    state.file === '' ? 'there is no good copy' : `the last good copy stays in use (${state.count} indicators)`;
  if (result === 'failed') {
    const why = `${state.problem?.code}: ${clean(state.problem?.message ?? '')}`;
    return `${colours.red('failed')}       ${name}: ${why}; ${kept}\n`;
  }
  const { title, remedy } = errorTable['E_INTEL_QUARANTINED'];
  const findings = (state.quarantine?.findings ?? []).map(({ text }) => `    ${clean(text)}\n`).join('');
  return `${colours.red('ALARM')}        ${name}: E_INTEL_QUARANTINED: ${title}; ${kept}\n${findings}    ${remedy}\n`;
}

const HEALTH_WORDS: Readonly<Record<FeedHealth, string>> = {
  fresh: 'fresh',
  stale: 'stale, still used',
  quarantined: 'QUARANTINED, last good copy used',
  failing: 'failing, last good copy used',
  missing: 'no copy yet',
};

/** Exit code 3 when a feed is not fresh: for monitoring. */
export async function intelStatus(io: Io, { json }: IntelCliOptions): Promise<number> {
  const feeds = await (await (await io.openApp()).intel()).status();
  const code = feeds.every(({ health }) => health === 'fresh') ? 0 : 3;
  if (json === true) {
    printJson(io, feeds);
    return code;
  }
  if (feeds.length === 0) io.out('no feeds are configured\n');
  for (const { name, health, count, freshAt, notes } of feeds) {
    const since = freshAt === 0 ? 'never' : new Date(freshAt * 1000).toISOString();
    io.out(`${name.padEnd(24)} ${HEALTH_WORDS[health].padEnd(34)} ${String(count).padStart(9)}  ${since}\n`);
    for (const note of notes) io.out(`    ${clean(note)}\n`);
  }
  return code;
}

interface ListCliOptions extends IntelCliOptions {
  readonly limit: string;
}

export async function intelList(io: Io, names: readonly string[], { json, limit }: ListCliOptions): Promise<number> {
  const most = Number(limit);
  if (!Number.isSafeInteger(most) || most < 1)
    throw new MayflyError('E_USAGE', `--limit ${limit}: must be a whole number above 0`);
  let count = 0;
  const intel = await (await io.openApp()).intel();
  for await (const record of intel.list(names)) {
    if (++count > most) {
      io.err(`mayfly: there are more; --limit ${most} are shown\n`);
      break;
    }
    if (json === true) io.out(`${JSON.stringify(record)}\n`);
    else {
      const { kind, value, severity, confidence, source, labels } = record;
      io.out(
        clean(`${kind.padEnd(7)} ${value}  ${severity}/${confidence}  ${source}${labels === '' ? '' : `  ${labels}`}`) +
          '\n',
      );
    }
  }
  return 0;
}

/** Exit code 0 when the value is listed, 1 when it is not. */
export async function intelLookup(io: Io, text: string, { json }: IntelCliOptions): Promise<number> {
  const found = await (await (await io.openApp()).intel()).lookup(text);
  if (json === true) printJson(io, found);
  else if (found.hits.length === 0) io.out(`${found.kind} ${found.value} is not listed\n`);
  else {
    for (const { value, source, severity, confidence, labels } of found.hits) {
      io.out(
        clean(`${found.kind} ${value}  ${severity}/${confidence}  ${source}  ${labels.join(', ')}`.trimEnd()) + '\n',
      );
    }
  }
  return found.hits.length === 0 ? 1 : 0;
}

interface ScoreCliOptions extends IntelCliOptions {
  readonly event: string;
  readonly source?: string;
}

export async function intelScore(io: Io, { event, source, json }: ScoreCliOptions): Promise<number> {
  const options = { bytesMax: limits.eventBytesMax + 1, signal: io.signal };
  const bytes =
    event === '-'
      ? await io.readInput(options.bytesMax)
      : await readFileAtMost(event, options).catch((cause: unknown) => {
          if (cause instanceof MayflyError) throw cause;
          throw new MayflyError('E_USAGE', `--event ${event} cannot be read`, { cause });
        });
  const app = await io.openApp();
  const scored = await app.score(bytes, source);
  if (json === true) printJson(io, scored);
  else io.out(formatScore(scored));
  return 0;
}

function formatScore({ score, level, reasons, degraded, complexity, attachments, notes }: ScoredEvent): string {
  const points = (value: number): string => String(value).padStart(5);
  return clean(
    [
      `threat ${score} of 100: ${level}`,
      ...reasons.map(({ points: value, text }) => `${points(value)}  ${text}`),
      ...(reasons.length === 0 ? ['    0  nothing in it is listed or suspicious'] : []),
      ...degraded.map(({ feed, health }) => `    !  feed ${feed} is ${HEALTH_WORDS[health]}`),
      ...notes.map((note) => `    !  ${note}`),
      `complexity ${complexity.value} of 100`,
      ...complexity.reasons.map(({ points: value, text }) => `${points(value)}  ${text}`),
      ...attachments.map(({ where, type, bytes }) => `       attachment at ${where}: ${type}, ${bytes} bytes`),
      '',
    ].join('\n'),
  );
}
