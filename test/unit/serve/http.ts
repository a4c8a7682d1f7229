/** A caller that holds every answer against the published description: what it does not describe is a failure. */
import assert from 'node:assert/strict';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ValidateFunction } from 'ajv/dist/2020.js';
import type { ServeRig } from './rig.ts';

interface Described {
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { readonly responses: Readonly<Record<string, Answer>> }>>>
  >;
}

interface Answer {
  readonly content?: Readonly<Record<string, { readonly schema?: object }>>;
}

export interface Called {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it has asked for
  readonly json: any;
}

export type Call = (method: string, path: string, init?: CallInit) => Promise<Called>;

export interface CallInit {
  readonly key?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
  readonly signal?: AbortSignal;
}

/** Paths and statuses that were answered and held against the description. */
export const covered = new Set<string>();

export async function caller({ url }: ServeRig): Promise<Call> {
  const described = (await (await fetch(`${url}/openapi.json`)).json()) as Described;
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  const compiled = new Map<object, ValidateFunction>();
  return async (method, path, { key, headers = {}, body, signal } = {}) => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { ...(key === undefined ? {} : { authorization: `Bearer ${key}` }), ...headers },
      ...(body === undefined ? {} : { body: new Uint8Array(Buffer.from(body)) }),
      ...(signal === undefined ? {} : { signal }),
    });
    const text = await response.text();
    const type = response.headers.get('content-type')?.split(';')[0] ?? '';
    const json: unknown = /json$/.test(type) ? JSON.parse(text) : undefined;
    const template = Object.keys(described.paths).find((each) => {
      return new RegExp(`^${each.replace(/\{[^}]+\}/g, '[^/]+')}$`).test(path.split('?')[0] ?? '');
    });
    if (template !== undefined) {
      const where = `${method} ${template} ${response.status}`;
      const answer = described.paths[template]?.[method.toLowerCase()]?.responses[String(response.status)];
      assert.ok(answer, `not described: ${where}`);
      const content = answer.content?.[type] ?? answer.content?.['*/*'];
      if (text !== '') assert.ok(content, `not described: ${where} as ${type}`);
      const schema = content?.schema;
      if (schema !== undefined && json !== undefined) {
        let fits = compiled.get(schema);
        if (fits === undefined) compiled.set(schema, (fits = ajv.compile(schema)));
        assert.ok(fits(json), `${where}: ${JSON.stringify(fits.errors)} ${text}`);
      }
      covered.add(where);
    }
    return { status: response.status, headers: response.headers, text, json };
  };
}
