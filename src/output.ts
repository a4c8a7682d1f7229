/**
 * A contract for outputs, opened for one run: the schema compiled, threat feeds and the customer's validator at hand.
 * The validator is code like any other: it runs in a clone of its own, on an event that has the output as its data.
 */
import type { App } from './app.ts';
import type { RunOrder } from './order.ts';
import { MayflyError } from './core/errors.ts';
import { isObject } from './core/json.ts';
import { limits } from './core/limits.ts';
import type { Clock } from './core/time.ts';
import type { Intel } from './intel/intel.ts';
import type { Outcome } from './stages.ts';
import type { ExaminedOutput, OutputContract, ValidatorAnswer } from './validate/contract.ts';
import { SchemaChecker } from './validate/schema.ts';

/** What is demanded of the output. */
export interface OutputOrder extends Omit<OutputContract, 'schema' | 'indicators' | 'validator'> {
  /** JSON Schema 2020-12, its text. */
  readonly schema?: Buffer;
  /** Looks the output up in the threat feeds of this home. */
  readonly indicators?: boolean;
  /** Runs on the output, in a clone of its own; gets it as the data of a CloudEvent `mayfly.output`. */
  readonly validator?: Pick<RunOrder, 'language' | 'workload'>;
}

interface OutputTools {
  readonly clock: Clock;
  intel(): Promise<Intel>;
  /** Runs a validator on an event. */
  run(validator: Pick<RunOrder, 'language' | 'workload'>, event: Buffer): Promise<Outcome>;
}

/**
 * Of an order; undefined when nothing is demanded. Rejects with E_SCHEMA_INVALID. Close its schema when the run is
 * over.
 */
export async function contractOf(
  { accelerator, signal, output }: RunOrder,
  app: Pick<App, 'run' | 'intel'>,
  clock: Clock,
): Promise<OutputContract | undefined> {
  if (output === undefined) return undefined;
  return await openContract(output, {
    clock,
    intel: () => app.intel(),
    run: (validator, event) => app.run({
      ...validator, event, accelerator, limits: { wallMillis: limits.validatorMillisDefault },
      ...(signal === undefined ? {} : { signal }),
    }),
  });
}

async function openContract(order: OutputOrder, tools: OutputTools): Promise<OutputContract> {
  const { schema, indicators, validator, ...rest } = order;
  return {
    ...rest,
    ...(schema === undefined ? {} : { schema: await SchemaChecker.open(schema, tools.clock) }),
    ...(indicators === true ? { indicators: (output) => listed(output, tools) } : {}),
    ...(validator === undefined ? {} : { validator: (output) => ask(output, validator, tools) }),
  };
}

/** What the feeds list of what is in the output: addresses, names, links, hashes, and files by their hash. */
async function listed({ bytes, value }: ExaminedOutput, { intel }: OutputTools): Promise<string[]> {
  const seen = value === undefined ? { data_base64: bytes.toString('base64') } : value;
  const { assessment } = await (await intel()).assess({ value: seen, bytes: bytes.length });
  return assessment.matches.map(({ kind, observable, source }) => `${kind} ${observable}, listed by ${source}`);
}

async function ask(
  { bytes, value, type }: ExaminedOutput,
  validator: Pick<RunOrder, 'language' | 'workload'>,
  { run }: OutputTools,
): Promise<ValidatorAnswer> {
  const id = `${bytes.length}`;
  const head = JSON.stringify({ specversion: '1.0', id, source: '/mayfly/output', type: 'mayfly.output' }).slice(0, -1);
  // JSON goes in verbatim: numbers beyond a double's precision reach the validator as the function wrote them.
  const body = value === undefined
    ? `,"datacontenttype":${JSON.stringify(type)},"data_base64":"${bytes.toString('base64')}"}`
    : `,"datacontenttype":"application/json","data":${bytes.toString('utf8')}}`;
  const { verdict, output } = await run(validator, Buffer.from(head + body));
  if (verdict.kind !== 'accepted') throw new MayflyError(verdict.code, verdict.message);
  const answer: unknown = JSON.parse(String(output));
  if (!isObject(answer) || typeof answer['accept'] !== 'boolean') {
    throw new MayflyError('E_OUTPUT_INVALID', 'it must return {"accept": true or false, "reason": "…"}');
  }
  return { accept: answer['accept'], reason: typeof answer['reason'] === 'string' ? answer['reason'] : '' };
}
