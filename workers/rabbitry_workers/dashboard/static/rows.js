// A table whose rows are replaced each second: what has not changed stays as it is, with focus and selection.
// Cells are text; a column's name with an ending tells what else a cell is (see table.py).
export default {
  props: { columns: Array, rows: Array },
  emits: ["sort", "act"],
  template: `
    <div class="rows"><table>
      <thead><tr>
        <th v-for="col in columns" :key="col.name" scope="col" :class="{right: col.right}" :aria-sort="col.order">
          <button v-if="col.sorts" type="button" class="sorter" @click="$emit('sort', col.name)">{{ col.label }}<span
            aria-hidden="true">{{ {ascending: " ↑", descending: " ↓"}[col.order] }}</span></button>
          <template v-else>{{ col.label }}</template>
        </th>
      </tr></thead>
      <tbody>
        <tr v-for="row in rows" :key="row.key">
          <td v-for="col in columns" :key="col.name" :class="{right: col.right, empty: !row[col.name]}"
            :data-label="col.label" :title="row[col.name + '_title']">
            <a v-if="row[col.name + '_link']" :href="row[col.name + '_link']">{{ row[col.name] }}</a>
            <span v-else-if="row[col.name + '_tone']" class="badge" :class="row[col.name + '_tone']">{{ row[col.name]
              }}</span>
            <span v-else-if="row[col.name + '_share'] !== undefined" class="meter"><span class="bar"><span
              :style="{width: row[col.name + '_share'] + '%'}"></span></span>{{ row[col.name] }}</span>
            <button v-else-if="row[col.name + '_act']" type="button" class="small"
              @click="$emit('act', row[col.name + '_act'])">{{ row[col.name] }}</button>
            <template v-else>{{ row[col.name] }}</template>
          </td>
        </tr>
      </tbody>
    </table></div>`,
};
