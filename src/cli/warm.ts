/**
 * `mayfly image warm`: templates before there is an event. It steps back for everybody else on the machine; a run that
 * wants a template which is being built here waits for that one only.
 */
import { setPriority } from 'node:os';
import { exitCodes, MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { paint, printJson } from './io.ts';
import type { Io } from './io.ts';
import { table } from './list.ts';
import { acceleratorOf } from './run.ts';
import { formatBytes, formatMillis } from './units.ts';

export interface WarmOptions {
  readonly all?: boolean;
  readonly accel: string;
  readonly json?: boolean;
}

/** Of nice(1). */
const LOWEST_PRIORITY = 19;

/** Exit 0 when every template is there. */
export async function warm(io: Io, image: string | undefined, options: WarmOptions): Promise<number> {
  if ((image === undefined) !== (options.all === true)) {
    const why = image === undefined ? 'which image? Name it, or say --all' : 'an image and --all exclude each other';
    throw new MayflyError('E_USAGE', why);
  }
  setPriority(LOWEST_PRIORITY);
  const mode = acceleratorOf(options.accel);
  const app = await io.openApp();
  const names = image === undefined ? (await app.repository()).images.list().map(({ name }) => name) : [image];
  const made: { readonly image: string; readonly key: string; readonly millis: number }[] = [];
  const { dim } = paint(io.colour);
  for (const [index, name] of names.entries()) {
    const began = io.now();
    const onBuild = (step: string): void => io.err(dim(`mayfly: ${index + 1} of ${names.length}: ${step} …\n`));
    const { key } = await app.warm(name, mode, { onBuild, signal: io.signal });
    made.push({ image: name, key, millis: io.now() - began });
  }
  const stock = await app.stock();
  const bytes = stock.reduce((sum, template) => sum + template.bytes, 0);
  const stale = stock.filter((template) => template.stale).length;
  if (options.json === true) {
    printJson(io, { warm: made, templates: stock.length, stale, bytes, bytesMax: limits.templatesBytesMax });
    return exitCodes.ok;
  }
  const sizes = new Map(stock.map((template) => [template.key, template.bytes]));
  io.out(table(made.map(({ image: name, key, millis }) => {
    return [name, 'warm', formatBytes(sizes.get(key) ?? 0), formatMillis(millis)];
  })));
  const use = `${formatBytes(bytes)} of ${formatBytes(limits.templatesBytesMax)}`;
  io.err(`mayfly: ${stock.length} templates, ${use}${stale > 0 ? `; ${stale} are stale (mayfly image gc)` : ''}\n`);
  return exitCodes.ok;
}
