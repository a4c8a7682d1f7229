/**
 * A JSON Schema (2020-12) of a customer, made into a check. Regular expressions are RE2, so none of them can stall;
 * references stay inside the document, so none of them reaches a file or a server. What a schema can still do is take
 * long: schema.ts runs this in a thread that it can end. Pure.
 */
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ErrorObject, ValidateFunction } from 'ajv/dist/2020.js';
import { RE2JS } from 're2js';
import { parseStrict, printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';

/** Throws Error with a sentence for whoever wrote the schema. */
export function compileSchema(schema: Buffer): (value: unknown) => string | undefined {
  const parsed = parseStrict(schema, { bytesMax: limits.schemaBytesMax, depthMax: limits.schemaDepthMax });
  if (!parsed.ok) throw new Error(`the schema is not usable JSON: ${parsed.problem.kind}`);
  const { value } = parsed;
  if (typeof value !== 'boolean' && (typeof value !== 'object' || value === null || Array.isArray(value))) {
    throw new Error('a schema is an object, true or false');
  }
  requireLocal(value);
  const ajv = new Ajv2020({
    strict: false, allErrors: false, validateFormats: false, logger: false, unicodeRegExp: false,
    code: { regExp: re2 },
  });
  let validate: ValidateFunction;
  try {
    validate = ajv.compile(value as object);
  } catch (thrown) {
    throw new Error(printableLine((thrown as Error).message, limits.schemaMessageUnits), { cause: thrown });
  }
  return (output) => {
    try {
      return validate(output) ? undefined : describe(validate.errors?.[0]);
    } catch (thrown) {
      // Out of stack: a reference that leads to itself without taking a step into the output.
      return `the schema could not be applied: ${printableLine((thrown as Error).message, 100)}`;
    }
  };
}

const re2 = Object.assign(
  (pattern: string) => {
    if (pattern.length > limits.schemaPatternUnitsMax) {
      throw new Error(`a pattern is longer than ${limits.schemaPatternUnitsMax} characters`);
    }
    const compiled = compilePattern(pattern);
    // Ajv tells patterns apart by their text.
    return { test: (text: string): boolean => compiled.matcher(text).find(), toString: () => `/${pattern}/` };
  },
  { code: 're2' },
);

function compilePattern(pattern: string): RE2JS {
  try {
    return RE2JS.compile(pattern);
  } catch (thrown) {
    throw new Error(`the pattern ${pattern.slice(0, 80)} is not valid RE2: ${(thrown as Error).message}`);
  }
}

/** Throws when the schema refers to anything outside of itself, or has more parts than allowed. */
function requireLocal(schema: unknown): void {
  const open: unknown[] = [schema];
  let parts = 0;
  for (let item = open.pop(); item !== undefined; item = open.pop()) {
    if (typeof item !== 'object' || item === null) continue;
    parts += 1;
    if (parts > limits.schemaPartsMax) throw new Error(`the schema has more than ${limits.schemaPartsMax} parts`);
    for (const [key, value] of Object.entries(item)) {
      const refers = (key === '$ref' || key === '$dynamicRef') && typeof value === 'string';
      if (refers && !value.startsWith('#')) {
        throw new Error(`${key} leads out of the schema: ${printableLine(value, 100)}`);
      }
      if (value !== null && value !== undefined) open.push(value);
    }
  }
}

/** Where and what, without a value of the output; names in it are the function's and capped. */
function describe(error: ErrorObject | undefined): string {
  if (error === undefined) return 'it does not fit';
  const where = error.instancePath === '' ? 'the result' : printableLine(error.instancePath, 200);
  const { additionalProperty, unevaluatedProperty } = error.params as Record<string, unknown>;
  const name = additionalProperty ?? unevaluatedProperty;
  const which = name === undefined ? '' : `: ${printableLine(String(name), 100)}`;
  return `${where} ${printableLine(error.message ?? 'does not fit', 200)}${which}`;
}
