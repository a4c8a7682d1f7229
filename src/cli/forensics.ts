/** `mayfly forensics …`: what was kept of clones, for a person who has to know what happened in one. */
import { writeFile } from 'node:fs/promises';
import { exitCodes, MayflyError } from '../core/errors.ts';
import { isoTime } from '../core/time.ts';
import { byWhom, jsonOf } from '../forensics.ts';
import type { Examined } from '../forensics.ts';
import { connectionsOf, htmlReport } from './forensics-html.ts';
import { paint, printJson } from './io.ts';
import type { Io } from './io.ts';
import { table } from './list.ts';
import { clean } from './log.ts';
import { formatBytes } from './units.ts';

export interface JsonOption {
  readonly json?: boolean;
}

export async function list(io: Io, { json }: JsonOption): Promise<number> {
  const found = await (await (await io.openApp()).forensics()).list();
  if (json === true) {
    printJson(io, found.map(({ manifest, digest, hold: held, bytes }) => ({ ...manifest, digest, hold: held, bytes })));
  } else {
    const rows = found.map(({ manifest, hold: held, bytes }) => [
      manifest.runId, manifest.takenAt, manifest.tenant, formatBytes(bytes),
      held.held ? 'held' : manifest.expiresAt.slice(0, 10), manifest.because,
    ]);
    io.out(table([['RUN', 'TAKEN', 'TENANT', 'SIZE', 'UNTIL', 'BECAUSE'], ...rows]));
  }
  return exitCodes.ok;
}

export interface ShowOptions extends JsonOption {
  readonly html?: string;
}

export async function show(io: Io, run: string, { json, html }: ShowOptions): Promise<number> {
  const examined = await (await (await io.openApp()).forensics()).examine(run);
  if (json === true) io.out(`${jsonOf(examined)}\n`);
  else if (html === undefined) io.out(clean(summary(io, examined)));
  else {
    await writeFile(html, htmlReport(examined), { mode: 0o600, flag: 'wx' }).catch((cause: NodeJS.ErrnoException) => {
      throw new MayflyError('E_USAGE', `--html ${html}: it must be a new file (${cause.code})`, { cause });
    });
    io.err(`mayfly: ${html} can be opened in any browser; it loads nothing\n`);
  }
  return exitCodes.ok;
}

function summary(io: Io, { analysis, findings }: Examined): string {
  const { bold, dim, red } = paint(io.colour && io.outIsTerminal);
  const { snapshot: { manifest }, processes, files, pages, log } = analysis;
  const head = `${bold(manifest.runId)}  ${manifest.takenAt}  ${manifest.because}\n`;
  const section = (title: string, lines: readonly string[]): string =>
    `${bold(title)}\n${(lines.length === 0 ? [dim('none')] : lines).map((line) => `  ${line}\n`).join('')}`;
  const kinds = Object.entries(pages.kinds).filter(([, count]) => count > 0);
  return head + [
    section('processes', processes.map(({ pid, parent, uid, name, state, arguments: args }) => {
      return `${pid} (of ${parent}) uid ${uid} ${name} ${state}${args.length > 0 ? `: ${args.join(' ')}` : ''}`;
    })),
    section('files', files.map(({ path, change, bytes, type, digest, writers }) => {
      const what = `${change} ${path}, ${formatBytes(bytes)}${type === '' ? '' : `, ${type}`}`;
      return `${what}${byWhom(writers)} ${dim(digest ?? '')}`;
    })),
    section('connections', connectionsOf(analysis.details)),
    section('indicators', findings.indicators.map((line) => red(line))),
    section('yara', [...findings.yara.map((line) => red(line)), ...findings.notes]),
    section('changed memory', kinds.map(([kind, count]) => `${kind}: ${count} pages`)),
    section('kernel log of the run', log),
  ].join('');
}

export async function timeline(io: Io, run: string, { json }: JsonOption): Promise<number> {
  const { analysis } = await (await (await io.openApp()).forensics()).examine(run);
  if (json === true) printJson(io, analysis.timeline);
  else {
    const rows = analysis.timeline.map(({ at, source, what }) => {
      return [isoTime(BigInt(Math.round(at)) * 1_000_000n), source, what];
    });
    io.out(clean(table([['TIME', 'SAYS', 'WHAT'], ...rows])));
  }
  return exitCodes.ok;
}

/** Exit 0 when both did the same, 1 when not. */
export async function diff(io: Io, one: string, two: string): Promise<number> {
  const lines = await (await (await io.openApp()).forensics()).compare(one, two);
  io.out(clean(lines.map((line) => `${line}\n`).join('')));
  return lines.length === 0 ? exitCodes.ok : exitCodes.functionFailed;
}

export async function exportSnapshot(io: Io, run: string, folder: string): Promise<number> {
  const written = await (await (await io.openApp()).forensics()).export(run, folder);
  io.out(`${written.map((name) => `${folder}/${name}`).join('\n')}\n`);
  io.err('mayfly: what is in files/ may be hostile; nothing there is executable\n');
  return exitCodes.ok;
}

export interface HoldOptions {
  readonly because?: string;
  readonly lift?: boolean;
}

export async function hold(io: Io, run: string, { because, lift }: HoldOptions): Promise<number> {
  if ((because === undefined) === (lift !== true)) {
    throw new MayflyError('E_USAGE', 'say why with --because, or take the hold away with --lift');
  }
  await (await (await io.openApp()).forensics()).hold(run, because);
  return exitCodes.ok;
}

export async function purge(io: Io, run: string | undefined, { json }: JsonOption): Promise<number> {
  const purged = await (await (await io.openApp()).forensics()).purge(run);
  if (json === true) printJson(io, purged);
  else {
    const held = purged.held.length === 0 ? '' : `; held beyond their time: ${purged.held.join(', ')}`;
    io.out(`${purged.removed.length} removed, ${formatBytes(purged.bytes)} freed${held}\n`);
  }
  return exitCodes.ok;
}
