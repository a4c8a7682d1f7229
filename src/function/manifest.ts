/**
 * `mayfly.yaml`: what a function is and what it asks for. Pure and bounded: every complaint has its line, and a key
 * that is not known is an error, because a misspelt limit must not become a default. docs/schema/function.json is the
 * same format for editors.
 */
import { isMap, isSeq } from 'yaml';
import { asMayflyError, MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { parseAllowList, parseNetworkFile } from '../egress/parse.ts';
import type { NetworkPolicy } from '../profile/network.ts';
import type { FieldName } from '../profile/order.ts';
import type { RequestedLimits } from '../profile/request.ts';
import { showProblem } from '../rules/load.ts';
import type { RuleProblem } from '../rules/rule.ts';
import { parseFieldValue } from '../rules/units.ts';
import { YamlReader } from '../rules/yaml.ts';
import type { Entry, YamlNode } from '../rules/yaml.ts';

export const MANIFEST_FILE = 'mayfly.yaml';

/** What is run: exactly one of these. Paths are inside the function's folder, with `/` between their parts. */
export type Start =
  | { readonly kind: 'handler'; readonly file: string }
  | { readonly kind: 'exec'; readonly file: string; readonly args: readonly string[]; readonly raw: boolean }
  | { readonly kind: 'program'; readonly path: string; readonly args: readonly string[]; readonly raw: boolean };

export interface Retry {
  /** Runs of one event, the first one included. */
  readonly attempts: number;
  /** Before the second run, ms; doubles with each. */
  readonly backoffMillis: number;
  /** Also when the function may have seen the event already. Otherwise such an event becomes a dead letter. */
  readonly afterDelivery: boolean;
}

export interface Manifest {
  readonly manifestVersion: 1;
  readonly name: string;
  readonly start: Start;
  /** Name, `name:tag` or digest. */
  readonly image: string;
  /** What the function gets before rules and threat levels have their say. */
  readonly limits: RequestedLimits;
  /** The least that it can work with: an event that rules leave less for is refused, not run into the ground. */
  readonly floor: RequestedLimits;
  readonly network: NetworkPolicy | null;
  readonly env: Readonly<Record<string, string>>;
  /** Events of this function that run at a time; null: as many as the service runs. */
  readonly concurrency: number | null;
  /** Clones that always wait for an event; null: as the rate of events asks for. */
  readonly warm: number | null;
  readonly retry: Retry;
  /** Folder or file with context rules, inside the function's folder. */
  readonly rules: string | null;
}

export interface ParsedManifest {
  /** Undefined when a problem is an error. */
  readonly manifest: Manifest | undefined;
  readonly problems: readonly RuleProblem[];
}

/** Names of functions and tenants: they are file names, parts of addresses and labels of metrics. */
export function isServiceName(text: string): boolean {
  return text.length <= limits.serviceNameMax && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(text);
}

const KEYS = [
  'mayfly', 'name', 'handler', 'exec', 'program', 'args', 'raw', 'image', 'limits', 'floor', 'network', 'env',
  'concurrency', 'warm', 'retry', 'rules',
];

/** Names in the manifest, and the fields of the profile that they are about. */
export const manifestLimits = {
  memory: 'memoryBytes', timeout: 'wallMillis', cpu: 'cpuQuotaMicros', pids: 'pids', files: 'openFiles',
  scratch: 'scratchBytes', output: 'outputBytes',
} as const satisfies Record<string, keyof RequestedLimits>;

const IMAGES: readonly (readonly [ending: RegExp, image: string])[] = [[/\.[mc]?js$/, 'node'], [/\.py$/, 'python']];

/** Never throws. `file` is how messages name it. */
export function parseManifest(file: string, bytes: Buffer): ParsedManifest {
  const reader = new ManifestReader(file, bytes);
  const manifest = reader.read();
  const { problems } = reader.yaml;
  return { manifest: problems.some(({ severity }) => severity === 'error') ? undefined : manifest, problems };
}

/** Throws E_MANIFEST_INVALID. */
export function requireManifest({ manifest, problems }: ParsedManifest): Manifest {
  if (manifest !== undefined) return manifest;
  const lines = problems.map(showProblem);
  throw new MayflyError('E_MANIFEST_INVALID', lines[0] ?? 'it is empty', { detail: lines.slice(1).join('\n') });
}

class ManifestReader {
  readonly yaml: YamlReader;

  constructor(file: string, bytes: Buffer) {
    this.yaml = new YamlReader(file, bytes);
  }

  read(): Manifest | undefined {
    const { yaml } = this;
    if (yaml.problems.length > 0) return undefined;
    const entries = yaml.entries(yaml.root, 'a manifest', KEYS);
    if (entries === undefined) return undefined;
    const find = (key: string): Entry | undefined => entries.find((entry) => entry.key === key);
    const version = find('mayfly');
    if (version === undefined) yaml.complain(yaml.root, 'mayfly is missing; this is version 1 (mayfly: 1)');
    else if (yaml.scalar(version.value, 'mayfly') !== 1) yaml.complain(version.at, 'mayfly must be 1');
    const name = this.#name(find('name'));
    const start = this.#start(find);
    const image = this.#image(find('image'), start);
    const retry = this.#retry(find('retry'));
    const rules = find('rules');
    const concurrency = this.#number(find('concurrency'), 'concurrency', 1, limits.concurrencyMax);
    const warm = this.#number(find('warm'), 'warm', 0, limits.warmMax);
    const bounds = this.#limits(find('limits'), 'limits');
    const floor = this.#limits(find('floor'), 'floor', bounds);
    const network = this.#network(find('network'));
    const env = this.#env(find('env'));
    const rulesPath = rules === undefined ? undefined : this.#path(rules, 'rules');
    if (name === undefined || start === undefined || image === undefined) return undefined;
    return {
      manifestVersion: 1, name, start, image, limits: bounds, floor, network, env, retry,
      concurrency: concurrency ?? null, warm: warm ?? null, rules: rulesPath ?? null,
    };
  }

  #name(entry: Entry | undefined): string | undefined {
    if (entry === undefined) return void this.yaml.complain(this.yaml.root, 'name is missing');
    const name = this.yaml.text(entry.value, 'name');
    if (name === undefined || isServiceName(name)) return name;
    const rule = `letters a to z, digits and hyphens inside, at most ${limits.serviceNameMax}`;
    return void this.yaml.complain(entry.value, `name: ${printableLine(name, 80)} must have ${rule}`);
  }

  #start(find: (key: string) => Entry | undefined): Start | undefined {
    const given = ['handler', 'exec', 'program'].flatMap((key) => find(key) ?? []);
    const [one] = given;
    if (one === undefined) {
      return void this.yaml.complain(this.yaml.root, 'there is nothing to run: name a handler, exec or program');
    }
    for (const other of given.slice(1)) this.yaml.complain(other.at, `${one.key} and ${other.key} exclude each other`);
    const args = this.#args(find('args'));
    const rawEntry = find('raw');
    const raw = this.#flag(rawEntry, 'raw') ?? false;
    if (one.key === 'program') {
      const path = this.yaml.text(one.value, 'program', limits.codePathBytesMax);
      if (path === undefined) return undefined;
      if (path.startsWith('/')) return { kind: 'program', path, args, raw };
      return void this.yaml.complain(one.value, 'program must be an absolute path in the image');
    }
    const file = this.#path(one, one.key);
    if (file === undefined) return undefined;
    if (one.key === 'exec') return { kind: 'exec', file, args, raw };
    const pointless = [find('args'), rawEntry].find((entry) => entry !== undefined);
    if (pointless !== undefined) this.yaml.complain(pointless.at, `${pointless.key} is for exec and program`);
    return { kind: 'handler', file };
  }

  #image(entry: Entry | undefined, start: Start | undefined): string | undefined {
    if (entry !== undefined) return this.yaml.text(entry.value, 'image');
    if (start?.kind !== 'handler') return 'shell';
    const known = IMAGES.find(([ending]) => ending.test(start.file));
    if (known !== undefined) return known[1];
    return void this.yaml.complain(this.yaml.root, `image is missing, and ${start.file} does not tell which it needs`);
  }

  /** Inside the function's folder, without a way out of it. */
  #path(entry: Entry, what: string): string | undefined {
    const text = this.yaml.text(entry.value, what, limits.codePathBytesMax);
    if (text === undefined) return undefined;
    const parts = text.replace(/^\.\//, '').replace(/\/$/, '').split('/');
    if (!parts.some((part) => part === '' || part === '.' || part === '..' || part.includes('\0')))
      return parts.join('/');
    return void this.yaml.complain(entry.value, `${what} must be a path inside the function's folder`);
  }

  #args(entry: Entry | undefined): readonly string[] {
    if (entry === undefined) return [];
    const items = this.yaml.items(entry.value, 'args');
    if (items.length > limits.imageListMax) this.yaml.complain(entry.at, `at most ${limits.imageListMax} args`);
    return items.slice(0, limits.imageListMax).flatMap((item) => {
      const value = this.yaml.scalar(item, 'an argument');
      if (value === undefined || value === null) return [];
      if (String(value).length <= limits.imageTextUnits && !String(value).includes('\0')) return [String(value)];
      this.yaml.complain(item, `an argument has at most ${limits.imageTextUnits} characters and no zero byte`);
      return [];
    });
  }

  #flag(entry: Entry | undefined, what: string): boolean | undefined {
    if (entry === undefined) return undefined;
    const value = this.yaml.scalar(entry.value, what);
    if (typeof value === 'boolean' || value === undefined) return value;
    return void this.yaml.complain(entry.value, `${what} must be true or false`);
  }

  #number(entry: Entry | undefined, what: string, min: number, max: number): number | undefined {
    if (entry === undefined) return undefined;
    const value = this.yaml.scalar(entry.value, what);
    if (value === undefined || (Number.isInteger(value) && Number(value) >= min && Number(value) <= max)) {
      return value as number | undefined;
    }
    return void this.yaml.complain(entry.value, `${what} must be a whole number from ${min} to ${max}`);
  }

  #limits(entry: Entry | undefined, what: string, ceiling: RequestedLimits = {}): RequestedLimits {
    const found: Partial<Record<keyof RequestedLimits, number>> = {};
    if (entry === undefined) return found;
    for (const { key, value } of this.yaml.entries(entry.value, what, Object.keys(manifestLimits)) ?? []) {
      const field = manifestLimits[key as keyof typeof manifestLimits];
      const written = this.yaml.scalar(value, `${what}.${key}`);
      if (written === undefined) continue;
      const parsed = parseFieldValue(`limits.${field}` as FieldName, written);
      const most = ceiling[field];
      if (typeof parsed === 'object') this.yaml.complain(value, `${what}.${key}: ${parsed.problem}`);
      else if (most !== undefined && Number(parsed) > most) {
        this.yaml.complain(value, `${what}.${key} is more than limits.${key}`);
      } else found[field] = Number(parsed);
    }
    return found;
  }

  #network(entry: Entry | undefined): NetworkPolicy | null {
    if (entry === undefined) return null;
    const { yaml } = this;
    try {
      if (isSeq(entry.value)) {
        return parseAllowList(yaml.items(entry.value, 'network').flatMap((item) => yaml.text(item, 'a place') ?? []));
      }
      if (isMap(entry.value)) return parseNetworkFile(JSON.stringify(yaml.plain(entry.value)));
      yaml.complain(entry.value, 'network must be a list of places, as in [api.example.com:443], or a policy');
    } catch (thrown) {
      yaml.complain(entry.value, `network: ${printableLine(asMayflyError(thrown).message, 300)}`);
    }
    return null;
  }

  #env(entry: Entry | undefined): Readonly<Record<string, string>> {
    if (entry === undefined) return {};
    const pairs: (readonly [string, string])[] = [];
    let bytes = 0;
    for (const { key, at, value } of this.yaml.entries(entry.value, 'env') ?? []) {
      const text = this.yaml.scalar(value, `env.${printableLine(key, 60)}`);
      if (text === undefined) continue;
      bytes += Buffer.byteLength(`${key}=${text}`);
      if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(key) && !String(text).includes('\0')) pairs.push([key, String(text ?? '')]);
      else this.yaml.complain(at, 'a name has letters, digits and underscores, and does not begin with a digit');
    }
    if (pairs.length > limits.envEntriesMax) this.yaml.complain(entry.at, `at most ${limits.envEntriesMax} variables`);
    if (bytes > limits.envBytesMax) this.yaml.complain(entry.at, `at most ${limits.envBytesMax} bytes of variables`);
    return Object.fromEntries(pairs);
  }

  #retry(entry: Entry | undefined): Retry {
    const entries = entry === undefined
      ? []
      : (this.yaml.entries(entry.value, 'retry', ['attempts', 'backoff', 'afterDelivery']) ?? []);
    const find = (key: string): Entry | undefined => entries.find((each) => each.key === key);
    const backoff = find('backoff');
    return {
      attempts: this.#number(find('attempts'), 'retry.attempts', 1, limits.retryAttemptsMax)
        ?? limits.retryAttemptsDefault,
      backoffMillis: backoff === undefined ? limits.retryBackoffMillisDefault : this.#backoff(backoff.value),
      afterDelivery: this.#flag(find('afterDelivery'), 'retry.afterDelivery') ?? true,
    };
  }

  #backoff(node: YamlNode | null): number {
    const written = this.yaml.scalar(node, 'retry.backoff');
    const millis = written === undefined ? 0 : parseFieldValue('limits.wallMillis', written);
    if (typeof millis === 'number' && millis <= limits.retryBackoffMillisMax) return millis;
    this.yaml.complain(node, `retry.backoff must be a time up to ${limits.retryBackoffMillisMax / 1000}s, as in 500ms`);
    return limits.retryBackoffMillisDefault;
  }
}
