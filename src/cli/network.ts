/** The network on the command line: policies from options, flows for people, and `mayfly egress explain`. */
import type { RunOrder } from '../order.ts';
import { exitCodes, MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { EgressReport } from '../egress/report.ts';
import { readFileAtMost } from './input.ts';
import { paint } from './io.ts';
import type { Io, Paint } from './io.ts';
import { formatBytes, formatMillis } from './units.ts';

export interface NetworkOptions {
  readonly allow?: readonly string[];
  readonly network?: string;
}

export async function networkOf(io: Io, { allow, network }: NetworkOptions): Promise<Pick<RunOrder, 'network'>> {
  if (allow !== undefined && network !== undefined) {
    throw new MayflyError('E_USAGE', '--allow and --network exclude each other');
  }
  if (allow === undefined && network === undefined) return {};
  const { parseAllowList, parseNetworkFile } = await import('../egress/parse.ts');
  if (allow !== undefined) return { network: parseAllowList(allow) };
  if (network === undefined) return {};
  try {
    const bytes = await readFileAtMost(network, { bytesMax: limits.networkFileBytesMax, signal: io.signal });
    return { network: parseNetworkFile(bytes.toString('utf8')) };
  } catch (thrown) {
    if (thrown instanceof MayflyError) throw thrown;
    const { code } = thrown as NodeJS.ErrnoException;
    throw new MayflyError('E_USAGE', `--network ${network}: it cannot be read (${code})`, { cause: thrown });
  }
}

const FLOWS_SHOWN = 40;

/** A line per connection and per denied name; empty when nothing was on the network. */
export function formatNetwork(report: EgressReport | undefined, colours: Paint): string {
  if (report === undefined) return '';
  const { totals, flows, queries } = report;
  if (totals.connections + totals.queries === 0) return '';
  const mark = { allowed: colours.green('allowed'), denied: colours.red('denied '), failed: colours.yellow('failed ') };
  const lines = flows.slice(0, FLOWS_SHOWN).map((flow) => {
    const { name, address, port, verdict, because, sentBytes, receivedBytes, millis, protocol } = flow;
    const where = `${name ?? address}:${port}${name !== null && address !== null ? ` (${address})` : ''}`
      + (protocol === null ? '' : ` ${protocol}`);
    const moved = verdict === 'allowed'
      ? `, ${formatBytes(sentBytes)} out, ${formatBytes(receivedBytes)} in, ${formatMillis(millis)}`
      : '';
    const why = colours.dim(printableLine(because, 200));
    return `  ${mark[verdict]}        ${printableLine(where, 200)}${moved}  ${why}`;
  });
  for (const { host, port, method, path, verdict, because, status } of report.requests.slice(0, FLOWS_SHOWN)) {
    const what = printableLine(`${method} ${host ?? '?'}:${port}${path}`, 200);
    lines.push(`  ${mark[verdict]}        ${what} ${status ?? ''}  ${colours.dim(printableLine(because, 200))}`);
  }
  const unknown = queries.filter((each) => each.verdict === 'denied').slice(0, FLOWS_SHOWN);
  for (const { name, type, verdict, count } of unknown) {
    lines.push(`  ${mark[verdict]}        the name ${printableLine(name ?? '?', 200)} (${type}, ${count} times)`);
  }
  const { connections, denied, failed, queries: asked, queriesDenied } = totals;
  const summary = `${connections} connections, ${denied} denied, ${failed} failed; `
    + `${asked} names asked for, ${queriesDenied} denied`;
  return `${[...lines, `  network        ${summary}`].join('\n')}\n`;
}

export interface ExplainOptions extends NetworkOptions {
  readonly address?: string;
  readonly json?: boolean;
}

/** Resolves to the exit code. */
export async function explain(io: Io, options: ExplainOptions, url: string): Promise<number> {
  const { network } = await networkOf(io, options);
  const { explainConnection } = await import('../egress/explain.ts');
  const decision = explainConnection(network, url, options.address);
  const colours = paint(io.colour);
  if (options.json === true) io.out(`${JSON.stringify(decision)}\n`);
  else io.out(`${decision.allowed ? colours.green('allowed') : colours.red('denied')}: ${decision.because}\n`);
  return decision.allowed ? exitCodes.ok : exitCodes.functionFailed;
}
