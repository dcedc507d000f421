document.querySelectorAll("thead button").forEach(function(button){button.addEventListener("click",function(){
var head=button.parentNode,index=head.cellIndex,body=head.closest("table").tBodies[0];
var down=head.getAttribute("aria-sort")==="ascending",rows=Array.from(body.rows);
function key(row){var cell=row.cells[index],v=cell.getAttribute("data-v");
return v===null?cell.textContent:v===""?NaN:Number(v)}
rows.map(function(row,place){return{row:row,place:place,key:key(row)}}).sort(function(a,b){
var x=a.key,y=b.key,n=Number.isNaN(x)-Number.isNaN(y);if(n)return n;
var order=typeof x==="number"&&typeof y==="number"?x-y||0:String(x).localeCompare(String(y));
if(x===y||Number.isNaN(order))order=0;return(down?-order:order)||a.place-b.place
}).forEach(function(item){body.appendChild(item.row)});
head.parentNode.querySelectorAll("th").forEach(function(th){th.removeAttribute("aria-sort")});
head.setAttribute("aria-sort",down?"descending":"ascending")})});
window.addEventListener("beforeprint",function(){document.querySelectorAll("details").forEach(function(d){d.open=true})});
