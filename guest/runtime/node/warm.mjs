/** Called once in the template, as a handler would be. */
export default async function (event, context) {
  await null;
  return { echo: event, left: context.getRemainingTimeMillis(), list: [1.5, 'a', null, true] };
}
