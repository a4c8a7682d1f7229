/**
 * The conversation with one registry: requests that are answered in time or given up, few redirects, credentials that
 * go to nobody but the registry and the token server that it names, no plain HTTP unless it stays on this machine.
 */
import { MayflyError } from '../../core/errors.ts';
import { printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../core/time.ts';
import { parseChallenge, parseToken } from './challenge.ts';
import type { Challenge, Credentials } from './challenge.ts';

/** As in core/limits.ts, ms. */
export interface RegistryBounds {
  readonly registryAnswerMillisMax: number;
  readonly registryIdleMillisMax: number;
  readonly registryBlobMillisMax: number;
  readonly registryBackoffMillis: number;
}

export interface HttpOptions {
  /** `host` or `host:port`. */
  readonly host: string;
  /** As in `library/debian`. */
  readonly repository: string;
  readonly credentials: Credentials | undefined;
  /** Plain HTTP was asked for: also to other machines. */
  readonly plainHttp: boolean;
  readonly signal: AbortSignal;
  readonly after: Clock['after'];
  /** For tests; production has core/limits.ts. */
  readonly bounds?: Partial<RegistryBounds>;
}

export interface Answer {
  readonly status: number;
  header(name: string): string;
  /** Fails when it is silent for too long, or takes too long altogether. */
  readonly body: AsyncIterable<Buffer>;
}

/** Marks a failure after which the same request may succeed. */
export class Passing extends Error {}

/** 127.0.0.0/8, ::1 and localhost: bytes that never leave this machine. */
function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.[0-9]{1,3}){3}$/.test(hostname);
}

export class RegistryHttp {
  readonly #options: HttpOptions;
  readonly #bounds: RegistryBounds;
  readonly #base: URL;
  #authorization = '';

  constructor(options: HttpOptions) {
    this.#options = options;
    this.#bounds = { ...limits, ...options.bounds };
    const { hostname } = new URL(`http://${options.host}`);
    const plain = options.plainHttp || isLoopback(hostname);
    this.#base = new URL(`${plain ? 'http' : 'https'}://${options.host}/v2/${options.repository}/`);
  }

  /**
   * GET below the repository, until it has a body. Rejects with E_IMAGE_SOURCE (there is none), E_IMAGE_AUTH,
   * E_IMAGE_FETCH (with `Passing` as its cause when it may pass) or E_INTERRUPTED.
   */
  async get(path: string, headers: Readonly<Record<string, string>>): Promise<Answer> {
    const url = new URL(path, this.#base);
    let answer = await this.#follow(url, headers);
    if (answer.status === 401) {
      await this.#authenticate(answer.header('www-authenticate'));
      answer = await this.#follow(url, headers);
    }
    const { status } = answer;
    if (status === 200 || status === 206) return answer;
    await close(answer);
    const shown = `${this.#options.host}/${this.#options.repository}`;
    if (status === 401 || status === 403) {
      const whose = this.#options.credentials === undefined ? 'without credentials' : 'with the credentials for it';
      throw new MayflyError('E_IMAGE_AUTH', `${shown}: HTTP ${status} ${whose}.`);
    }
    if (status === 404) throw new MayflyError('E_IMAGE_SOURCE', `${shown} has no ${path.replace(/^[a-z]+\//, '')}.`);
    throw this.#failed(`HTTP ${status}`, status === 429 || status >= 500 ? new Passing() : undefined);
  }

  /** Rejects with E_INTERRUPTED. */
  async wait(millis: number): Promise<void> {
    const { signal, after } = this.#options;
    await new Promise<void>((resolve) => {
      const cancel = after(millis, resolve);
      signal.addEventListener('abort', () => { cancel(); resolve(); }, { once: true });
    });
    if (signal.aborted) throw interrupted();
  }

  async #follow(from: URL, headers: Readonly<Record<string, string>>): Promise<Answer> {
    let url = from;
    for (let hop = 0; hop <= limits.registryRedirectsMax; hop += 1) {
      const own = url.origin === this.#base.origin && this.#authorization !== '';
      const answer = await this.#fetch(url, { ...headers, ...(own ? { authorization: this.#authorization } : {}) });
      const target = answer.header('location');
      if (answer.status < 300 || answer.status >= 400 || target === '') {
        // Whoever it was redirected to has no say about credentials for the registry.
        if (answer.status !== 401 || url.origin === this.#base.origin) return answer;
        await close(answer);
        throw this.#failed(`HTTP 401 from ${url.host}, where it was redirected to`);
      }
      await close(answer);
      url = this.#allowed(target, url);
    }
    throw this.#failed(`more than ${limits.registryRedirectsMax} redirects`);
  }

  /** An address that a registry has named. */
  #allowed(target: string, from: URL): URL {
    const to = URL.canParse(target, from.href) ? new URL(target, from) : undefined;
    const shown = printableLine(target, 100);
    if (to === undefined || !/^https?:$/.test(to.protocol) || to.username !== '') {
      throw this.#failed(`it leads to ${shown}`);
    }
    const plain = to.protocol === 'http:';
    if (plain && (from.protocol === 'https:' || !(isLoopback(to.hostname) || this.#options.plainHttp))) {
      throw this.#failed(`it leads to plain HTTP, ${shown}`);
    }
    // A registry elsewhere has nothing to ask of this machine's own servers.
    if (isLoopback(to.hostname) && !isLoopback(this.#base.hostname)) throw this.#failed(`it leads back here, ${shown}`);
    return to;
  }

  async #authenticate(header: string): Promise<void> {
    const challenge = parseChallenge(header);
    const { host, credentials } = this.#options;
    if (challenge === undefined) throw new MayflyError('E_IMAGE_AUTH', `${host} wants an unknown kind of credentials.`);
    const basic = credentials === undefined
      ? undefined
      : `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`;
    if (challenge.kind === 'bearer') this.#authorization = `Bearer ${await this.#token(challenge, basic)}`;
    else if (basic !== undefined) this.#authorization = basic;
    else throw new MayflyError('E_IMAGE_AUTH', `${host} wants a name and a password, and there are none for it.`);
  }

  async #token({ realm, service }: Extract<Challenge, { kind: 'bearer' }>, basic: string | undefined): Promise<string> {
    const url = this.#allowed(realm, this.#base);
    if (service !== '') url.searchParams.set('service', service);
    // Never the scope that the challenge names: pulling from this one repository is all that is wanted.
    url.searchParams.set('scope', `repository:${this.#options.repository}:pull`);
    const answer = await this.#fetch(url, basic === undefined ? {} : { authorization: basic });
    const refused = (why: string): MayflyError => {
      return new MayflyError('E_IMAGE_AUTH', `${url.host}, which ${this.#options.host} names for tokens: ${why}.`);
    };
    if (answer.status !== 200) {
      await close(answer);
      throw refused(`HTTP ${answer.status}`);
    }
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of answer.body) {
      bytes += chunk.length;
      if (bytes > limits.registryTokenBytesMax) throw refused('its answer has no end');
      chunks.push(chunk);
    }
    const token = parseToken(Buffer.concat(chunks));
    if (token === undefined) throw refused('its answer has no token');
    return token;
  }

  async #fetch(url: URL, headers: Readonly<Record<string, string>>): Promise<Answer> {
    const { signal, after } = this.#options;
    const { registryAnswerMillisMax, registryIdleMillisMax, registryBlobMillisMax } = this.#bounds;
    if (signal.aborted) throw interrupted();
    const giveUp = new AbortController();
    const stop = (why: string) => (): void => giveUp.abort(new Error(why));
    const cancel = after(registryAnswerMillisMax, stop(`no answer within ${registryAnswerMillisMax} ms`));
    const problem = (thrown: unknown): MayflyError => {
      if (signal.aborted) return interrupted();
      const reason: unknown = giveUp.signal.aborted ? giveUp.signal.reason : thrown;
      return this.#failed(reasonOf(reason), new Passing('', { cause: thrown }));
    };
    const response = await fetch(url, {
      headers: { 'user-agent': 'mayfly', 'accept-encoding': 'identity', ...headers },
      redirect: 'manual',
      signal: AbortSignal.any([signal, giveUp.signal]),
    }).catch((thrown: unknown) => { throw problem(thrown); }).finally(cancel);
    const chunks = response.body as AsyncIterable<Uint8Array> | null;
    const body = (async function* () {
      if (chunks === null) return;
      const late = after(registryBlobMillisMax, stop(`not complete within ${registryBlobMillisMax} ms`));
      const silent = stop(`silent for ${registryIdleMillisMax} ms`);
      let idle = after(registryIdleMillisMax, silent);
      try {
        for await (const chunk of chunks) {
          idle();
          yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
          idle = after(registryIdleMillisMax, silent);
        }
      } catch (thrown) {
        throw problem(thrown);
      } finally {
        idle();
        late();
      }
    })();
    return { status: response.status, header: (name) => response.headers.get(name) ?? '', body };
  }

  #failed(why: string, cause?: Passing): MayflyError {
    return new MayflyError('E_IMAGE_FETCH', `${this.#options.host}: ${printableLine(why, 200)}.`, { cause });
  }
}

/** Undici keeps a connection busy until its body is read or dropped. */
async function close({ body }: Answer): Promise<void> {
  for await (const _chunk of body) break;
}

function interrupted(): MayflyError {
  return new MayflyError('E_INTERRUPTED', 'The import was interrupted.');
}

function reasonOf(thrown: unknown): string {
  const cause = thrown instanceof Error && thrown.cause instanceof Error ? thrown.cause : thrown;
  return cause instanceof Error ? cause.message : String(cause);
}
