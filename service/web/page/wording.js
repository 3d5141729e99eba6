// Texts for results and numbers, independent of the page and the network.

/** A share as a percentage with one decimal. */
export const percent = (share) => `${(share * 100).toFixed(1)} %`;

/** A number of things: "1 file", "2 files". */
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** The kind of a label, for its colour: yes, no or none. */
export function kindOf(label, card) {
  if (!label) return "none";
  return label === (card?.positive_label ?? "COVID") ? "yes" : "no";
}

/** One sentence for each of the three probabilities; none if the model gives only one. */
export function sentences({ lesion_probability: lesion, covid_given_lesion: covid, probability }) {
  if (lesion === null) return [];
  return [
    `Lesions are present with a probability of ${percent(lesion)}.`,
    `If they are, COVID-19 rather than another disease is the cause with ${percent(covid)}.`,
    `So the probability of COVID-19 is ${percent(probability)}.`,
  ];
}

/** Text of the label column: the label, the reason for none, or the state. */
export function outcome({ state, answer, problem }) {
  if (state === "done") return answer.label ?? words(answer.out_of_distribution.reason ?? "out_of_distribution");
  if (state === "failed") return words(problem.code);
  return { waiting: "Waiting", sending: "Reading…", cancelled: "Cancelled" }[state];
}

/** Whether the probability that decides the label reaches its threshold, in words. */
export function relation({ probability, threshold, lesion_probability: lesion, lesion_threshold: least }) {
  const side = (value, limit) => `${value >= limit ? "at or above" : "below"} the threshold of ${percent(limit)}`;
  if (least) return `the label follows from the lesions, ${percent(lesion)}: ${side(lesion, least)}`;
  return threshold > 0 ? side(probability, threshold) : "the label follows from the lesions";
}

/** How often such a label was right on the test slices of the card; "" if the card has no such score. */
export function worth(label, card) {
  const { precision, sensitivity } = card.test_metrics;
  const ofHundred = (share) => Math.round(share * 100);
  const range = (value, low, high) => `${ofHundred(value)} of 100 (95 % interval ${ofHundred(low)} to ${ofHundred(high)})`;
  if (label === card.positive_label && precision) {
    return `In the official test, ${range(precision.value, precision.low, precision.high)} slices labelled ${label} were labelled correctly. This depends on how many of the patients have COVID-19.`;
  }
  if (label === card.positive_label || !sensitivity) return "";
  const missed = range(1 - sensitivity.value, 1 - sensitivity.high, 1 - sensitivity.low);
  return `In the official test, ${missed} ${card.positive_label} slices were missed: this result rules nothing out.`;
}

/** The legend of the map. */
export function legend(hasLungs) {
  if (hasLungs) return "Colour: probability of lesion in the lungs. White line: 0.25. Blue line: the lungs.";
  return "Colour: activity of the network, relative to the highest in this slice. White line: 0.25. Do not compare two slices by it.";
}

/** The score of the checks in a sentence. */
export function checkScore({ out_of_distribution: { score, threshold, flagged } }, card) {
  if (card && Object.keys(card.checks).length === 0) return "This model does not check images.";
  const limit = `above ${threshold.toFixed(0)}`;
  return flagged ? `Check score ${score.toFixed(2)}, ${limit}.` : `${score.toFixed(2)}; ${limit} there is no result`;
}

/** "about 40 s left" */
export function timeLeft(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.ceil(seconds / 5) * 5)} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

/** The part of the lungs that a band of severity stands for (MosMedData). */
export const SEVERITY = { "CT-0": "none", "CT-1": "up to 25 %", "CT-2": "25 to 50 %", "CT-3": "50 to 75 %", "CT-4": "above 75 %" };

/** A code of the service in words. */
export function words(code) {
  if (code === "not_read") return "Not read: between two slices that were";
  return (code[0].toUpperCase() + code.slice(1)).replaceAll("_", " ").replace(/ ct$/, " CT");
}
