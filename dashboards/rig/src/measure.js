// What the checks need to know about the panels of the page. tests/dashboards/rig.py decides what is a fault.
import { VizPanel, sceneGraph } from '@grafana/scenes';

const TOLERANCE = 1;

/** Yields the visible text nodes of an element. */
function* textNodes(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const {
      currentNode: node,
      currentNode: { parentElement: parent },
    } = walker;
    const isForScreenReaders = parent.clientWidth === 1;
    if (
      node.data.trim() &&
      !isForScreenReaders &&
      parent.tagName !== 'STYLE' &&
      parent.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    ) {
      yield node;
    }
  }
}

/** Returns whether a box on the way to `outermost` cuts the text off. A table may have more rows than fit. */
function isCutOff(node, outermost, isRow) {
  const range = document.createRange();
  range.selectNodeContents(node);
  const text = range.getBoundingClientRect();
  for (let each = node.parentElement; outermost.contains(each); each = each.parentElement) {
    const { overflow } = getComputedStyle(each);
    if (overflow !== 'visible') {
      const box = each.getBoundingClientRect();
      const isOutside =
        text.left < box.left - TOLERANCE ||
        text.right > box.right + TOLERANCE ||
        (!isRow && (text.top < box.top - TOLERANCE || text.bottom > box.bottom + TOLERANCE));
      const isTooWide = each === node.parentElement && each.scrollWidth > each.clientWidth + TOLERANCE;
      if (isOutside || isTooWide) {
        return true;
      }
    }
  }
  return false;
}

/** Returns by how many pixels the columns of a table are wider than the panel. */
function hiddenWidth(content) {
  const scrolled = [...content.querySelectorAll('*')].filter(
    (each) =>
      each.querySelector('[role=columnheader]') && ['auto', 'scroll'].includes(getComputedStyle(each).overflowX),
  );
  return Math.max(0, ...scrolled.map((each) => each.scrollWidth - each.clientWidth));
}

function measurePanel(panel) {
  const { key, title, pluginId: type } = panel.state;
  const { data } = sceneGraph.getData(panel).state;
  const content = document.querySelector(`[data-panel="${key.replace('panel-', '')}"]`);
  const cell = content?.closest('.react-grid-item');
  const texts = [];
  for (const node of cell ? textNodes(cell) : []) {
    const header = node.parentElement.closest('[role=columnheader]');
    const isContent = content.contains(node);
    texts.push({
      text: node.data.trim(),
      isContent,
      size: parseFloat(getComputedStyle(node.parentElement).fontSize),
      isCutOff: type !== 'text' && isCutOff(node, header ?? cell, type === 'table' && isContent && !header),
    });
  }
  for (const canvas of content?.querySelectorAll('canvas') ?? []) {
    texts.push(...(canvas.texts ?? []).map(({ text, size }) => ({ text, size, isContent: true, isCutOff: false })));
  }
  return {
    title,
    type,
    texts,
    isDrawn: Boolean(cell),
    error: data?.errors?.[0]?.message ?? data?.error?.message ?? null,
    hasData: type === 'text' || Boolean(data?.series.some((frame) => frame.length > 0)),
    hiddenWidth: content ? hiddenWidth(content) : 0,
  };
}

/** Returns a measurement of each panel of a scene. */
export function measure(scene) {
  return sceneGraph.findAllObjects(scene, (each) => each instanceof VizPanel).map(measurePanel);
}
