/** Called once in the template, as a CommonJS handler would be. */
module.exports = async (event) => ({ id: event.id });
