// An npm package beside the handler is shipped with it.
import { setTimeout as sleep } from 'node:timers/promises';
import { greet } from 'greeting';

export default async (event) => {
  await sleep(5);
  return greet(event.data.name ?? 'dependency');
};
