/** The thread that schema.ts ends when a schema takes too long: compiles once, then checks one output after another. */
import { parentPort } from 'node:worker_threads';
import { compileSchema } from './schema-compile.ts';
import type { SchemaAnswer, SchemaQuestion } from './schema.ts';

let check: (value: unknown) => string | undefined = () => 'there is no schema';

parentPort?.on('message', (question: SchemaQuestion) => parentPort?.postMessage(answer(question)));

function answer(question: SchemaQuestion): SchemaAnswer {
  try {
    if (question.kind === 'hello') return {};
    if (question.kind === 'compile') {
      check = compileSchema(Buffer.from(question.schema));
      return {};
    }
    const problem = check(JSON.parse(question.text));
    return problem === undefined ? {} : { problem };
  } catch (thrown) {
    return { problem: (thrown as Error).message };
  }
}
