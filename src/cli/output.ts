/** What is demanded of an output, from the command line. */
import { MayflyError } from '../core/errors.ts';
import { isObject, parseStrict } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Workload } from '../event/workload.ts';
import type { OutputOrder } from '../output.ts';
import { readFileAtMost } from './input.ts';
import type { Io } from './io.ts';

export interface OutputOptions {
  readonly schema?: string;
  readonly outputType?: readonly string[];
  readonly secrets?: string;
  readonly canary?: readonly string[];
  readonly credentials?: string;
  readonly neutralise?: readonly string[];
  readonly indicators?: boolean;
  readonly validator?: string;
}

/** What a validator is, as a handler is packed. */
export type PackHandler = (path: string) => Promise<{ readonly language: string | null; readonly workload: Workload }>;

/** Undefined when nothing is demanded. Rejects with E_USAGE and the codes of a handler. */
export async function outputOf(io: Io, options: OutputOptions, pack: PackHandler): Promise<OutputOrder | undefined> {
  const { schema, outputType, secrets, canary, credentials, neutralise, indicators, validator } = options;
  if (credentials !== undefined && credentials !== 'note' && credentials !== 'withhold') {
    throw new MayflyError('E_USAGE', `--credentials ${credentials}: must be note or withhold`);
  }
  const order: OutputOrder = {
    ...(schema === undefined ? {} : { schema: await fileOf(io, '--schema', schema, limits.schemaBytesMax) }),
    ...(outputType === undefined ? {} : { types: outputType.map(mediaType) }),
    ...(secrets === undefined ? {} : { secrets: await secretsOf(io, secrets) }),
    ...(canary === undefined ? {} : { canaries: canariesOf(canary) }),
    ...(credentials === undefined ? {} : { credentials }),
    ...(neutralise === undefined ? {} : { neutralise: neutralise.map(audience) }),
    ...(indicators === undefined ? {} : { indicators }),
    ...(validator === undefined ? {} : { validator: await pack(validator) }),
  };
  return Object.keys(order).length === 0 ? undefined : order;
}

async function fileOf(io: Io, option: string, path: string, bytesMax: number): Promise<Buffer> {
  try {
    return await readFileAtMost(path, { bytesMax: bytesMax + 1, signal: io.signal });
  } catch (thrown) {
    if (thrown instanceof MayflyError) throw thrown;
    const { code } = thrown as NodeJS.ErrnoException;
    throw new MayflyError('E_USAGE', `${option} ${path}: it cannot be read (${code})`, { cause: thrown });
  }
}

function mediaType(text: string): string {
  if (/^[a-z0-9.+-]{1,60}\/(?:\*|[a-z0-9.+-]{1,100})$/.test(text)) return text;
  throw new MayflyError('E_USAGE', `--output-type ${text}: must be a media type, as in image/png or image/*`);
}

function audience(text: string): 'html' | 'ansi' | 'csv' {
  if (text === 'html' || text === 'ansi' || text === 'csv') return text;
  throw new MayflyError('E_USAGE', `--neutralise ${text}: must be html, ansi or csv`);
}

function canariesOf(canaries: readonly string[]): readonly string[] {
  const { canariesMax } = limits;
  if (canaries.length > canariesMax) throw new MayflyError('E_USAGE', `more than ${canariesMax} canaries`);
  for (const canary of canaries) requireLength('--canary', canary);
  return canaries;
}

/** A file, because arguments can be seen by everybody: one JSON object of names and values. */
async function secretsOf(io: Io, path: string): Promise<ReadonlyMap<string, string>> {
  const bytesMax = limits.secretsFileBytesMax;
  const parsed = parseStrict(await fileOf(io, '--secrets', path, bytesMax), { bytesMax, depthMax: 1 });
  if (!parsed.ok || !isObject(parsed.value)) {
    throw new MayflyError('E_USAGE', `--secrets ${path}: must be one JSON object of names and texts`);
  }
  const secrets = Object.entries(parsed.value);
  if (secrets.length > limits.secretsMax) {
    throw new MayflyError('E_USAGE', `--secrets ${path}: more than ${limits.secretsMax} secrets`);
  }
  return new Map(secrets.map(([name, value]) => {
    if (typeof value !== 'string') throw new MayflyError('E_USAGE', `--secrets ${path}: ${name} is not a text`);
    requireLength(`--secrets ${path}: ${name}`, value);
    return [name, value];
  }));
}

function requireLength(what: string, value: string): void {
  const bytes = Buffer.byteLength(value);
  const { secretBytesMin, secretBytesMax } = limits;
  if (bytes >= secretBytesMin && bytes <= secretBytesMax) return;
  throw new MayflyError('E_USAGE', `${what}: must have ${secretBytesMin} to ${secretBytesMax} bytes`);
}
