/**
 * `mayfly/client`: sends events and reads what became of them, with nothing but `fetch`, so also in a browser. Its
 * types are those that the service publishes in /openapi.json.
 */
import type { Accepted, Events, EventStatus, Functions, ProblemDetails } from '../serve/schemas.ts';

export type { EventStatus, ProblemDetails } from '../serve/schemas.ts';

export interface ClientOptions {
  /** As in `http://127.0.0.1:8420`. */
  readonly url: string;
  /** API key. */
  readonly key: string;
  /** Instead of the platform's own. */
  readonly fetch?: typeof fetch;
}

export interface SendOptions {
  /** The same key and event: one run, and the same answer. */
  readonly idempotencyKey?: string;
  readonly signal?: AbortSignal;
}

/** What the service answered instead of a result; `problem.code` is stable. */
export class MayflyProblem extends Error {
  override readonly name = 'MayflyProblem';
  readonly problem: ProblemDetails;
  /** Seconds after which the same call may succeed. */
  readonly retryAfter: number | undefined;

  constructor(problem: ProblemDetails, retryAfter: number | undefined) {
    super(`${problem.code}: ${problem.detail}`);
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

export class MayflyClient {
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  /** The function's output for this data. Rejects with MayflyProblem. */
  async invoke(name: string, data: unknown, options: SendOptions = {}): Promise<unknown> {
    const response = await this.#send(name, JSON.stringify(data), 'application/json', {}, options);
    if (response.status !== 202) return await this.#body(response);
    const { ids: [id = ''] } = (await this.#body(response)) as Accepted;
    return outputOf(await this.settled(id, options));
  }

  /** Accepted, and on the medium; resolves to the id of the event. */
  async send(name: string, data: unknown, options: SendOptions = {}): Promise<string> {
    const headers = { prefer: 'respond-async' };
    const response = await this.#send(name, JSON.stringify(data), 'application/json', headers, options);
    return ((await this.#body(response)) as Accepted).ids[0] ?? '';
  }

  /** CloudEvents 1.0 as objects, all or none of them. */
  async sendCloudEvents(
    name: string,
    events: readonly object[],
    options: SendOptions = {},
  ): Promise<readonly string[]> {
    const type = 'application/cloudevents-batch+json';
    const response = await this.#send(name, JSON.stringify(events), type, {}, options);
    return ((await this.#body(response)) as Accepted).ids;
  }

  /** Where it stands; with `waitSeconds` not before it is at an end, or that time is over. */
  async event(
    id: string,
    { waitSeconds = 0, signal }: { waitSeconds?: number; signal?: AbortSignal } = {},
  ): Promise<EventStatus> {
    const path = `/v1/events/${encodeURIComponent(id)}?wait=${waitSeconds}`;
    return (await this.#body(await this.#call('GET', path, signal === undefined ? {} : { signal }))) as EventStatus;
  }

  /** Once it is at an end. */
  async settled(id: string, { signal }: Pick<SendOptions, 'signal'> = {}): Promise<EventStatus> {
    for (;;) {
      const event = await this.event(id, { waitSeconds: 60, ...(signal === undefined ? {} : { signal }) });
      if (event.state === 'succeeded' || event.state === 'failed') return event;
    }
  }

  async functions(): Promise<Functions['functions']> {
    return ((await this.#body(await this.#call('GET', '/v1/functions'))) as Functions).functions;
  }

  async deadLetters(page: { readonly limit?: number; readonly before?: string } = {}): Promise<Events> {
    const query = Object.entries(page).map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
    return (await this.#body(await this.#call('GET', `/v1/dead-letters?${query}`))) as Events;
  }

  async retryDeadLetter(id: string): Promise<void> {
    await this.#body(await this.#call('POST', `/v1/dead-letters/${encodeURIComponent(id)}/retry`));
  }

  async purgeDeadLetter(id: string): Promise<void> {
    await this.#body(await this.#call('DELETE', `/v1/dead-letters/${encodeURIComponent(id)}`));
  }

  async #send(
    name: string, body: string, type: string, headers: Readonly<Record<string, string>>, options: SendOptions,
  ): Promise<Response> {
    const { idempotencyKey, signal } = options;
    return await this.#call('POST', `/v1/functions/${encodeURIComponent(name)}/events`, {
      body,
      headers: {
        'content-type': type,
        ...headers,
        ...(idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey }),
      },
      ...(signal === undefined ? {} : { signal }),
    });
  }

  async #call(method: string, path: string, init: RequestInit = {}): Promise<Response> {
    const { url, key, fetch: ask = fetch } = this.#options;
    const headers = { ...(init.headers as Record<string, string> | undefined), authorization: `Bearer ${key}` };
    return await ask(new URL(path, url), { ...init, method, headers });
  }

  async #body(response: Response): Promise<unknown> {
    const type = response.headers.get('content-type') ?? '';
    if (response.ok) {
      if (response.status === 204) return undefined;
      return type.startsWith('application/json') ? await response.json() : new Uint8Array(await response.arrayBuffer());
    }
    const retryAfter = response.headers.get('retry-after');
    throw new MayflyProblem(
      (await response.json()) as ProblemDetails,
      retryAfter === null ? undefined : Number(retryAfter),
    );
  }
}

function outputOf({ state, output, outputBase64, failure, id, run }: EventStatus): unknown {
  if (state === 'succeeded') {
    if (outputBase64 === undefined) return output;
    return Uint8Array.from(atob(outputBase64), (unit) => unit.charCodeAt(0));
  }
  const { code = 'E_INTERNAL', blame = '', message = '', remedy = '' } = failure ?? {};
  const type = `urn:mayfly:error:${code}`;
  throw new MayflyProblem(
    { type, title: message, status: 0, code, blame, detail: message, remedy, event: id, run },
    undefined,
  );
}
