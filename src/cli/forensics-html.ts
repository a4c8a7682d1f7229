/**
 * A snapshot as one page to read, print and pass on: no script, nothing that is loaded from anywhere, and every text
 * that comes from a guest escaped.
 */
import { isoTime } from '../core/time.ts';
import type { Examined } from '../forensics.ts';
import { formatBytes } from './units.ts';

const STYLE = `
  body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
  h1 { font-size: 1.5rem; margin-bottom: 0 }
  h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #d0d7de }
  table { border-collapse: collapse; width: 100% }
  th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0 }
  th { font-weight: 600; color: #57606a } td { border-top: 1px solid #eaeef2; overflow-wrap: anywhere }
  code { font: 13px ui-monospace, monospace } .bad { color: #b42318; font-weight: 600 } .dim { color: #57606a }
  .heat { display: flex; flex-wrap: wrap; gap: 1px } .heat i { width: 9px; height: 9px; background: #eaeef2 }
  @media print { body { margin: 0; max-width: none } h2 { break-after: avoid } tr { break-inside: avoid } }
`;

const PROCESS_HEAD = ['PID', 'Of', 'User', 'Name', 'State', 'Program and arguments', 'Open files'];

export function htmlReport({ analysis, findings }: Examined): string {
  const { snapshot: { manifest, digest, hold }, details, processes, files, pages, log, timeline, mounts } = analysis;
  const verdict = details['verdict'] as { kind: string; code?: string; message?: string } | undefined;
  const said = `${verdict?.kind ?? '?'} ${verdict?.code ?? ''} ${verdict?.message ?? ''}`;
  const most = Math.max(1, ...pages.heat);
  const heat = pages.heat.map((count, at) => {
    const share = Math.sqrt(count / most);
    const colour = count === 0 ? '' : ` style="background:rgba(180,35,24,${(0.15 + 0.85 * share).toFixed(2)})"`;
    return `<i title="MiB ${at}: ${count} pages"${colour}></i>`;
  }).join('');
  const matches = [...findings.indicators, ...findings.yara.map((hit) => `YARA: ${hit}`)];
  const kinds = Object.entries(pages.kinds).filter(([, count]) => count > 0).map(([kind, count]) => `${kind} ${count}`);
  const section = (title: string, body: string): string => `<h2>${safe(title)}</h2>${body}`;
  const text = (key: string): string => Buffer.from(String(details[key] ?? ''), 'base64').toString('utf8');
  return `<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Mayfly ${safe(manifest.runId)}</title><style>${STYLE}</style>
<h1>Run ${safe(manifest.runId)}</h1>
<p class="dim">kept ${safe(manifest.takenAt)} because: ${safe(manifest.because)}; ${
  hold.held ? `held: ${safe(hold.because)}` : `until ${safe(manifest.expiresAt)}`}</p>
<p><b>Verdict</b> ${safe(said)}</p>
${section('Indicators and rules that match', list(matches, 'bad'))}
${section('Connections', list(connectionsOf(details)))}
${section('Files', rows(['Change', 'Path', 'Type', 'Size', 'Owner', 'Written by', 'SHA-256'], files.map((file) => [
  file.change, file.path, file.type, formatBytes(file.bytes), String(file.uid), file.writers.join(' or '),
  (file.digest ?? '').replace('sha256:', ''),
])))}
${section('Processes', rows(PROCESS_HEAD, processes.map((it) => [
  String(it.pid), String(it.parent), String(it.uid), it.name, it.state, [it.program, ...it.arguments].join(' '),
  it.files.join(', '),
])))}
${section('In order of time', rows(['Time', 'Says', 'What'], timeline.map(({ at, source, what }) => [
  isoTime(BigInt(Math.round(at)) * 1_000_000n), source, what,
])))}
${section('Changed memory', `<p>${manifest.changedPages} pages of 4 KiB differ from the template: ${
  safe(kinds.join(', '))
}. Each square is 1 MiB.</p><div class="heat">${heat}</div>`)}
${section('Log of the function', `<pre><code>${safe(`${text('stdout')}${text('stderr')}`)}</code></pre>`)}
${section('Kernel log of the run', `<pre><code>${safe(log.join('\n'))}</code></pre>`)}
${section('Mounts', rows(['Device', 'Type', 'Path'], mounts.map(({ device, type, path }) => [device, type, path])))}
${section('What this rests on', `<p class="dim">“host” is what Mayfly itself saw. “memory” was read from the memory
of the guest after it was stopped: no program in it was asked, but a guest that had taken over its own kernel could
have forged it. Who wrote a file is inferred from its owner and time. Manifest <code>${safe(digest)}</code>, template
<code>${safe(manifest.template)}</code>, kernel <code>${safe(manifest.kernel)}</code>.</p>`)}
</html>
`;
}

function rows(head: readonly string[], body: readonly (readonly string[])[]): string {
  if (body.length === 0) return '<p class="dim">none</p>';
  const line = (cells: readonly string[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${safe(cell)}</${tag}>`).join('')}</tr>`;
  return `<table>${line(head, 'th')}${body.map((cells) => line(cells, 'td')).join('\n')}</table>`;
}

function list(lines: readonly string[], style = ''): string {
  if (lines.length === 0) return '<p class="dim">none</p>';
  return `<ul>${lines.map((line) => `<li class="${style}">${safe(line)}</li>`).join('')}</ul>`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;',
};

function safe(text: string): string {
  return text.replace(/[&<>"']/g, (char) => ENTITIES[char] ?? char);
}

/** Of the run's own record. */
export function connectionsOf(details: { readonly [name: string]: unknown }): string[] {
  const network = details['network'] as { flows: Flow[]; queries: Query[] } | null;
  return [
    ...(network?.flows ?? []).map(({ name, address, port, verdict, because }) => {
      return `${verdict} ${name ?? address}:${port}, ${because}`;
    }),
    ...(network?.queries ?? []).map(({ name, type, verdict, count }) => {
      return `${verdict} name ${name} (${type}, ${count} times)`;
    }),
  ];
}

interface Flow {
  readonly name: string | null;
  readonly address: string | null;
  readonly port: number;
  readonly verdict: string;
  readonly because: string;
}

interface Query {
  readonly name: string | null;
  readonly type: string;
  readonly verdict: string;
  readonly count: number;
}
